"""ShiftResNet50 on ImageNet, in three sizes (Table 3).

    python train.py --config=configs/shiftresnet50.py --workdir=runs/shiftresnet50
    python train.py --config=configs/shiftresnet50.py:width=0.5**0.5 --workdir=runs/smaller
    python train.py --config=configs/shiftresnet50.py:width=0.5 --workdir=runs/smallest

Options after the colon, separated by commas: width=W, batch_size=N, strong and smoke;
`shift_jax.config.imagenet` explains them.

Reproduces: Table 3.
Expected: for widths 1, √½ and ½ 75.6 / 92.8, 73.7 / 91.8 and 70.6 / 89.9 % top-1 / top-5 in the
paper; not run here yet.
Size: 21,807,272, 11,335,202 and 5,985,864 parameters, 3,819, 1,925 and 985 M
multiply-accumulates at 224×224.
Cost: 56,250 steps of 2048 images.
"""

from ml_collections import ConfigDict

from shift_jax.config import imagenet, nested


def get_config(options=""):
    return ConfigDict(nested(imagenet("shiftresnet50", options, arguments=("width",))))
