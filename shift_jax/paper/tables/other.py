"""Tables 3, 6, 7, 9 and 10: ImageNet, ShiftNet, faces and style transfer."""

from __future__ import annotations

from typing import Any

from shift_jax.counting.layer_table import LayerRow
from shift_jax.models import create_model
from shift_jax.paper.tables.parts import Counted, Part, agreement, counted
from shift_jax.paper.tables.printed import TABLE_3, TABLE_6, TABLE_7, TABLE_9, TABLE_10


def table_3() -> list[Part]:
    """ResNet50 and ShiftResNet50 at three widths."""
    rows = []
    for cells, (scale, width) in zip(
        TABLE_3, (("1", 1.0), ("1/√2", 0.5**0.5), ("1/2", 0.5)), strict=True
    ):
        for name, accuracy, printed in (
            ("ShiftResNet50", cells.shift_accuracy, cells.shift_params),
            ("ResNet50", cells.resnet_accuracy, cells.resnet_params),
        ):
            network = counted(name.lower(), width=width)
            rows.append(_row(f"{name}, width {scale}", accuracy, printed, network))
    widths = "The paper does not print the widths; these give its parameters."
    return [Part(3, "ImageNet, top-1 / top-5; MACs at 224×224", rows, (widths,))]


def table_6() -> list[Part]:
    """The architecture of ShiftNet-A beside that of `shiftnet_a`."""
    network = counted("shiftnet_a")
    groups = create_model("shiftnet_a").groups
    rows = []
    for cells in TABLE_6:
        if cells.group != "-":
            group = groups[int(cells.group) - 1]
            rows.append(_module_row(cells, group.features, group.kernel_size, network))
        elif cells.kind == "Avg Pool":
            side = _output_shape(network.part("group4_").rows[-1])[0]
            kernel = f"{side}×{side}"  # It pools the whole of the last feature map.
            rows.append(_architecture_row(cells, Counted(()), _pooled(network), kernel))
        else:
            layers = network.part("stem" if cells.kind.startswith("Conv") else "classifier")
            channels = _output_shape(layers.rows[0])[-1]
            kernel = "7×7" if layers.rows[0].params == 49 * 3 * channels else "-"
            rows.append(_architecture_row(cells, layers, channels, kernel))
    total = dict.fromkeys(rows[0])
    rows.append({**total, "type / stride": "total", "params": network.params, "MACs": network.macs})
    remarks = (
        "E multiplies the module's input channels. Modules of stride 2 compute out - in channels "
        "and concatenate the average-pooled input.",
        "ShiftNet-B has half of all channels, including the stem's: with a stem of 32, its group 1 "
        "would take 32 channels to 32 and leave nothing to concatenate.",
        "ShiftNet-C's printed 0.78 M leaves one reading: modules of stride 2 compute the full "
        "width, in to out to out, beside a shortcut without parameters. The counts do not tell "
        "whether there is a shortcut; the one here is average-pooled, zero-padded in channels and "
        "added.",
    )
    return [Part(6, "Architecture of ShiftNet-A; MACs at 224×224", rows, remarks)]


def _module_row(cells, features: int, kernel_size: int, network: Counted) -> dict[str, Any]:
    """Returns the row of a group's strided module, or of its other modules."""
    strided = cells.kind.endswith("s2")
    blocks = sorted({r.name.split("/")[0] for r in network.part(f"group{cells.group}_").rows})
    blocks = [name for name in blocks if name.endswith("_block1") == strided]
    layers = network.part(*(f"{name}/" for name in blocks))
    first = layers.rows[0]
    middle = _output_shape(first)[-1]
    expansion = middle * middle // first.params  # The kernel is (in, middle).
    kernel = f"{kernel_size}×{kernel_size}"
    return _architecture_row(cells, layers, features, kernel, str(expansion), len(blocks))


def _architecture_row(
    cells, layers: Counted, channels: int, kernel: str, expansion: str = "-", repeat: int = 1
) -> dict[str, Any]:
    printed = (cells.kernel, cells.expansion, cells.channels.replace("1k", "1000"), cells.repeat)
    found = (kernel, expansion, str(channels), str(repeat))
    return {
        "group": cells.group,
        "type / stride": cells.kind,
        "paper's kernel, E, channels, repeat": ", ".join(
            (cells.kernel, cells.expansion, cells.channels, cells.repeat)
        ),
        "kernel": kernel,
        "E": expansion,
        "output channels": channels,
        "repeat": repeat,
        "agrees": "yes" if printed == found else "no",
        "params": layers.params,
        "MACs": layers.macs,
    }


def _output_shape(row: LayerRow) -> tuple[int, ...]:
    assert row.output_shape is not None  # Of layers that have a kernel.
    return row.output_shape


def _pooled(network: Counted) -> int:
    """Returns the channels after the average pool: the rows of the classifier's kernel."""
    classifier = network.part("classifier").rows[0]
    return classifier.macs // _output_shape(classifier)[-1]


def table_7() -> list[Part]:
    """ShiftNet and other ImageNet networks."""
    networks: dict[str, list[tuple[str, str, dict, str | None]]] = {
        "VGG-16": [("", "vgg16", {}, None)],
        "GoogleNet": [
            ("", "googlenet", {}, "6.8 is the sum of the rounded cells of GoogLeNet's own table."),
        ],
        "ShiftResNet-0.25 (ours)": [("", "shiftresnet50", {"width": 0.5}, "Table 3's last row.")],
        "ShuffleNet-2×*": [
            (
                "",
                "shufflenet",
                {},
                "The paper's own estimate (*); strided units of full width would have 5.6 M.",
            ),
        ],
        "1.0 MobileNet-224": [("", "mobilenet", {"width": 1.0}, None)],
        "ShiftNet-A (ours)": [("", "shiftnet_a", {}, None)],
        "0.5 MobileNet-224": [("", "mobilenet", {"width": 0.5}, None)],
        "ShiftNet-B (ours)": [("", "shiftnet_b", {}, None)],
        "AlexNet": [("", "alexnet", {}, "Grouped convolutions, as in Caffe.")],
        "SqueezeNet": [
            (" 1.0", "squeezenet", {"version": "1.0"}, "The paper does not say which version."),
            (" 1.1", "squeezenet", {"version": "1.1"}, None),
        ],
        "ShiftNet-C (ours)": [("", "shiftnet_c", {}, None)],
    }
    rows = []
    for cells in TABLE_7:
        for suffix, name, arguments, note in networks.get(cells.model, ()):
            network = counted(name, **arguments)
            label = cells.model + suffix
            rows.append(_row(label, cells.accuracy, cells.params, network, note, norm=True))
        if cells.model not in networks:
            quoted = "Quoted only: no code is public that could be counted."
            rows.append(_row(cells.model, cells.accuracy, cells.params, None, quoted, norm=True))
    return [Part(7, "ImageNet, top-1 / top-5; MACs at 224×224", rows)]


def table_9() -> list[Part]:
    """FaceNet and ShiftFaceNet."""
    face = counted("facenet", num_classes=10000)
    shift = counted("shiftfacenet", embedding_size=512, num_classes=0)
    printed, shift_printed = TABLE_9["FaceNet"], TABLE_9["ShiftFaceNet"]
    softmax = "This comes nearest to the printed 28.5 M."
    with_fc = (
        "The printed 0.78 M is that of ShiftNet-C with its ImageNet classifier, which no face "
        "network has; MACs at 224×224."
    )
    rows = [
        _row(label, None, cell, network, note)
        for label, cell, network, note in (
            ("FaceNet, trunk", printed, face.part("trunk/"), None),
            ("FaceNet, 512-d embedding", printed, face.part("trunk/", "embedding"), None),
            ("FaceNet, 512-d and 10,000-way softmax", printed, face, softmax),
            ("ShiftFaceNet, trunk", shift_printed, shift.part("trunk/"), None),
            (
                "ShiftFaceNet, 128-d embedding",
                shift_printed,
                counted("shiftfacenet", embedding_size=128, num_classes=0),
                None,
            ),
            ("ShiftFaceNet, 512-d embedding", shift_printed, shift, None),
            ("ShiftNet-C with its FC", shift_printed, counted("shiftnet_c"), with_fc),
        )
    ]
    remarks = (
        "FaceNet is Inception-ResNet-v1 of arXiv:1602.07261; the paper's reference [21] is another "
        "paper.",
        'The text\'s "35X" is 28.5 / 0.78 = 36.5.',
    )
    return [Part(9, "Face verification; MACs at 160×160", rows, remarks)]


def table_10() -> list[Part]:
    """The style transformers."""
    variants = {
        "released": "as in the authors' released code",
        "text": "as in the paper's text, 9/3/3 … 3/3/9",
    }
    rows = []
    for label, name in (("Original", "style_transformer"), ("Shift", "shift_style_transformer")):
        for variant, described in variants.items():
            network = counted(name, variant=variant)
            rows.append(_row(f"{label}, {described}", None, TABLE_10[label], network))
    released = "The printed parameters are those of the authors' released code, not of the text."
    return [Part(10, "Style transfer; MACs at 256×256", rows, (released,))]


def _row(
    name: str,
    accuracy: str | None,
    printed: str,
    network: Counted | None,
    note: str | None = None,
    norm: bool = False,
) -> dict[str, Any]:
    """Returns the row of a network.

    `norm` adds the parameters without BatchNorm, which some papers do not count.
    """
    row: dict[str, Any] = {"model": name}
    if accuracy is not None:
        row["paper's accuracy"] = accuracy
    row |= {"paper's params": printed, "params": network and network.params}
    if norm:
        row["params without BatchNorm"] = network and network.params_without_norm
    agrees = network and agreement(printed, network.params)
    if (
        norm
        and network
        and agrees == "no"
        and agreement(printed, network.params_without_norm) != "no"
    ):
        agrees = f"{agreement(printed, network.params_without_norm)} (without BatchNorm)"
    return {**row, "params agree": agrees, "MACs": network and network.macs, "note": note}
