"""ShiftNet-B on ImageNet (Tables 6 and 7).

    python train.py --config=configs/shiftnet_b.py --workdir=runs/shiftnet_b
    python train.py --config=configs/shiftnet_b.py:batch_size=256 --workdir=runs/shiftnet_b
    python train.py --config=configs/shiftnet_b.py:smoke --workdir=runs/smoke

Options after the colon, separated by commas: batch_size=N, strong and smoke;
`shift_jax.config.imagenet` explains them.

Reproduces: ShiftNet-B in Table 7.
Expected: 61.2 / 83.6 % top-1 / top-5 in the paper; not run here yet.
Size: 1,183,000 parameters, 371 M multiply-accumulates at 224×224 (1.1 M parameters in the paper).
Cost: 56,250 steps of 2048 images.
"""

from ml_collections import ConfigDict

from shift_jax.config import imagenet, nested


def get_config(options=""):
    return ConfigDict(nested(imagenet("shiftnet_b", options)))
