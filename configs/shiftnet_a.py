"""ShiftNet-A on ImageNet (Tables 6 and 7).

    python train.py --config=configs/shiftnet_a.py --workdir=runs/shiftnet_a
    python train.py --config=configs/shiftnet_a.py:batch_size=256 --workdir=runs/shiftnet_a
    python train.py --config=configs/shiftnet_a.py:smoke --workdir=runs/smoke

Options after the colon, separated by commas: batch_size=N, strong and smoke;
`shift_jax.config.imagenet` explains them.

Reproduces: ShiftNet-A in Table 7.
Expected: 70.1 / 89.7 % top-1 / top-5 in the paper; not run here yet.
Size: 4,187,720 parameters, 1,424 M multiply-accumulates at 224×224 (4.1 M parameters in the paper).
Cost: 56,250 steps of 2048 images; docs/distributed.md has the compiler's estimates for TPUs.
"""

from ml_collections import ConfigDict

from shift_jax.config import imagenet, nested


def get_config(options=""):
    return ConfigDict(nested(imagenet("shiftnet_a", options)))
