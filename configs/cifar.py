"""The CIFAR networks of Table 5, by the authors' recipe.

    python train.py --config=configs/cifar.py:cifar100,shiftresnet20,expansion=3 \\
        --config.data.data_dir=$HOME/tensorflow_datasets --workdir=runs/shiftresnet20-3

Options after the colon, separated by commas: the dataset (cifar10 or cifar100), a model of
shift_jax.list_models(), its arguments as key=value, `short` and `smoke`. `short` is a recipe of
ours that gets further in few epochs: 40 epochs of batches of 64 under a cosine from 0.2, Nesterov
momentum, weight decay on kernels only, He initialization. `smoke` runs for seconds on a CPU.

Reproduces: the networks of Table 5, and with them Tables 1, 2 and 4, as the authors' code trains
them. One difference is known: BatchNorm's running variance is the variance of the batch, which
PyTorch multiplies by n / (n - 1), 1.0001 here.
Expected CIFAR-100 top-1 in %, paper / the authors' later run: ShiftResNet20 with E = 1, 3, 6, 9:
55.62 / 55.05, 62.32 / 65.83, 68.64 / 69.73, 69.82 / 70.77; ShiftResNet56: 65.21 / 63.20, 69.77,
72.13 / 72.33, 73.64 / 73.43; ShiftResNet110: 67.84 / 68.01, 71.83 / 72.10, 72.56 / 73.17, 74.10 /
73.71; ResNet20, 56, 110: 66.25, 69.27, 72.11. These come from the best test epoch. Training prints
the last epoch, and `eval.py --which=best` evaluates the best.
Cost: 164 epochs, which are 64,124 steps of 128 images; not run yet. `short` on one core of an AMD
EPYC: ShiftResNet20-3 reaches 63.07 % on CIFAR-100 in 121 CPU minutes.
"""

from ml_collections import ConfigDict

from shift_jax.config import cifar, nested


def get_config(options="cifar100,shiftresnet20,expansion=3"):
    return ConfigDict(nested(cifar(options)))
