"""The cells of the paper's tables as printed, with their misprints and truncations.

Text between slashes is split into columns of its own. Parameters and FLOPs without a letter are in
millions.
"""

from typing import NamedTuple


class Table1Row(NamedTuple):
    """Parameters for shift and convolution at the same accuracy on CIFAR-100."""

    model: str
    top1: str
    flops: str
    params: str


TABLE_1 = (
    Table1Row("ShiftResNet56-3", "69.77%", "0.3M", "54M"),
    Table1Row("ResNet56", "69.27%", "0.87M", "151M"),
)


class Table2Row(NamedTuple):
    """Shift and convolution with the same number of parameters on CIFAR-100."""

    model: str
    top1: str
    flops: str
    params: str


TABLE_2 = (
    Table2Row("ShiftResNet110-1", "67.84%", "36M", "203K"),
    Table2Row("ResNet110-1", "60.44%", "32M", "211K"),
)


class Table3Row(NamedTuple):
    """Shift and convolution on ImageNet; accuracies are top-1 / top-5."""

    shift_accuracy: str
    resnet_accuracy: str
    shift_params: str
    resnet_params: str


TABLE_3 = (
    Table3Row("75.6 / 92.8", "75.1 / 92.5", "22M", "26M"),
    Table3Row("73.7 / 91.8", "73.2 / 91.6", "11M", "13M"),
    Table3Row("70.6 / 89.9", "70.1 / 89.9", "6.0M", "6.9M"),
)


class Table4Row(NamedTuple):
    """ShiftResNet-6 and ResNet "with 1.5 fewer parameters", top-1 on CIFAR-100."""

    layers: int
    shift_top1: str
    resnet_top1: str


TABLE_4 = (
    Table4Row(20, "68.64%", "66.25%"),
    Table4Row(56, "72.13%", "69.27%"),
    Table4Row(110, "72.56%", "72.11%"),
)


class Table5Row(NamedTuple):
    """All CIFAR results; accuracies are CIFAR-10 / CIFAR-100, of net-wise ones CIFAR-100 only."""

    depth: int
    expansion: int
    shift: str
    module_wise: str
    net_wise: str
    params: str
    flops: str
    params_rate: str
    flops_rate: str


TABLE_5 = (
    Table5Row(20, 1, "86.66% / 55.62%", "85.54% / 52.40%", "49.58%", "0.03", "12", "7.8", "5.5"),
    Table5Row(20, 3, "90.08% / 62.32%", "88.33% / 60.61%", "58.16%", "0.10", "26", "2.9", "2.6"),
    Table5Row(20, 6, "90.59% / 68.64%", "90.09% / 64.27%", "63.22%", "0.19", "46", "1.5", "1.4"),
    Table5Row(20, 9, "91.69% / 69.82%", "91.35% / 66.25%", "66.25%", "0.28", "67", "0.98", "1.0"),
    Table5Row(56, 1, "89.71% / 65.21%", "87.46% / 56.78%", "56.62%", "0.10", "21", "8.4", "7.0"),
    Table5Row(56, 3, "92.11% / 69.77%", "89.40% / 62.53%", "64.49%", "0.29", "54", "2.9", "2.8"),
    Table5Row(56, 6, "92.69% / 72.13%", "89.89% / 61.99%", "67.45%", "0.58", "102", "1.5", "1.5"),
    Table5Row(56, 9, "92.74% / 73.64%", "92.01% / 69.27%", "69.27%", "0.87", "151", "0.98", "1.0"),
    Table5Row(110, 1, "90.34% / 67.84%", "76.82% / 39.90%", "60.44%", "0.20", "35", "8.5", "7.8"),
    Table5Row(110, 3, "91.98% / 71.83%", "74.30% / 40.52%", "66.61%", "0.59", "96", "2.9", "2.9"),
    Table5Row(110, 6, "93.17% / 72.56%", "79.02% / 40.23%", "68.87%", "1.18", "187", "1.5", "1.5"),
    Table5Row(110, 9, "92.79% / 74.10%", "92.46% / 72.11%", "72.11%", "1.76", "279", "0.98", "1.0"),
)


class Table6Row(NamedTuple):
    """ShiftNet-A's architecture; "-" where the paper prints a dash."""

    group: str
    kind: str
    kernel: str
    expansion: str
    channels: str
    repeat: str


TABLE_6 = (
    Table6Row("-", "Conv / s2", "7×7", "-", "32", "1"),
    Table6Row("1", "CSC / s2", "5×5", "4", "64", "1"),
    Table6Row("1", "CSC / s1", "5×5", "4", "64", "4"),
    Table6Row("2", "CSC / s2", "5×5", "4", "128", "1"),
    Table6Row("2", "CSC / s1", "5×5", "3", "128", "5"),
    Table6Row("3", "CSC / s2", "3×3", "3", "256", "1"),
    Table6Row("3", "CSC / s1", "3×3", "2", "256", "6"),
    Table6Row("4", "CSC / s2", "3×3", "2", "512", "1"),
    Table6Row("4", "CSC / s1", "3×3", "1", "512", "2"),
    Table6Row("-", "Avg Pool", "7×7", "-", "512", "1"),
    Table6Row("-", "FC", "-", "-", "1k", "1"),
)


class Table7Row(NamedTuple):
    """ImageNet results, top-1 / top-5."""

    model: str
    accuracy: str
    params: str


TABLE_7 = (
    Table7Row("VGG-16", "71.5 / 90.1", "138"),
    Table7Row("GoogleNet", "69.8 / -", "6.8"),
    Table7Row("ShiftResNet-0.25 (ours)", "70.6 / 89.9", "6.0"),
    Table7Row("ShuffleNet-2×*", "70.9 / -", "5.6"),
    Table7Row("1.0 MobileNet-224", "70.6 / -", "4.2"),
    Table7Row("Compact DNN", "68.9 / 89.0", "4.1"),
    Table7Row("ShiftNet-A (ours)", "70.1 / 89.7", "4.1"),
    Table7Row("0.5 MobileNet-224", "63.7 / -", "1.3"),
    Table7Row("ShiftNet-B (ours)", "61.2 / 83.6", "1.1"),
    Table7Row("AlexNet", "57.2 / 80.3", "60"),
    Table7Row("SqueezeNet", "57.5 / 80.3", "1.2"),
    Table7Row("ShiftNet-C (ours)", "58.8 / 82.0", "0.78"),
)

# Face verification: parameters.
TABLE_9 = {"FaceNet": "28.5", "ShiftFaceNet": "0.78"}

# Style transfer: parameters.
TABLE_10 = {"Original": "1.9", "Shift": "0.3"}
