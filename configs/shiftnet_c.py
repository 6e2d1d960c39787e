"""ShiftNet-C on ImageNet (Tables 6 and 7).

    python train.py --config=configs/shiftnet_c.py --workdir=runs/shiftnet_c
    python train.py --config=configs/shiftnet_c.py:batch_size=256 --workdir=runs/shiftnet_c
    python train.py --config=configs/shiftnet_c.py:smoke --workdir=runs/smoke

Options after the colon, separated by commas: batch_size=N, strong and smoke;
`shift_jax.config.imagenet` explains them.

Reproduces: ShiftNet-C in Table 7.
Expected: 58.8 / 82.0 % top-1 / top-5 in the paper; not run here yet.
Size: 784,136 parameters, 156 M multiply-accumulates at 224×224 (0.78 M parameters in the paper).
Cost: 56,250 steps of 2048 images.
"""

from ml_collections import ConfigDict

from shift_jax.config import imagenet, nested


def get_config(options=""):
    return ConfigDict(nested(imagenet("shiftnet_c", options)))
