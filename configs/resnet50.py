"""ResNet50, to which Table 3 compares ShiftResNet50, on ImageNet, in three sizes.

    python train.py --config=configs/resnet50.py --workdir=runs/resnet50
    python train.py --config=configs/resnet50.py:width=0.5**0.5 --workdir=runs/smaller
    python train.py --config=configs/resnet50.py:width=0.5 --workdir=runs/smallest

Options after the colon, separated by commas: width=W, batch_size=N, strong and smoke;
`shift_jax.config.imagenet` explains them.

Reproduces: Table 3.
Expected: for widths 1, √½ and ½ 75.1 / 92.5, 73.2 / 91.6 and 70.1 / 89.9 % top-1 / top-5 in the
paper; not run here yet.
Size: 25,557,032, 13,203,719 and 6,917,640 parameters, 4,089, 2,059 and 1,052 M
multiply-accumulates at 224×224.
Cost: 56,250 steps of 2048 images.
"""

from ml_collections import ConfigDict

from shift_jax.config import imagenet, nested


def get_config(options=""):
    return ConfigDict(nested(imagenet("resnet50", options, arguments=("width",))))
