"""The CIFAR networks of Table 5, by the authors' recipe.

    python train.py --config=configs/cifar.py:cifar100,shiftresnet20,expansion=3 \\
        --config.data.data_dir=$HOME/tensorflow_datasets --workdir=runs/shiftresnet20-3

Options after the colon: the dataset (cifar10 or cifar100), a model of shift_jax.list_models(), its
arguments as key=value, `short` for a recipe of ours that gets further in few epochs (4, in batches
of 64, under a cosine, from He initialisation, without crops), and `smoke` for a run of seconds on a
CPU.

Reproduces: Table 5's cells (and with them Tables 1, 2 and 4), by the authors' code; the one known
difference is that BatchNorm's running variance is the batch's own, which PyTorch multiplies by
n / (n - 1), 1.0001 here.
Expected CIFAR-100 top-1 in %, paper / the authors' later run: ShiftResNet20 with E = 1, 3, 6, 9:
55.62 / 55.05, 62.32 / 65.83, 68.64 / 69.73, 69.82 / 70.77; ShiftResNet56: 65.21 / 63.20, 69.77,
72.13 / 72.33, 73.64 / 73.43; ShiftResNet110: 67.84 / 68.01, 71.83 / 72.10, 72.56 / 73.17, 74.10 /
73.71; ResNet20, 56, 110: 66.25, 69.27, 72.11. These are best test epochs; ours are printed for the
last epoch, and `eval.py --which=best` gives the best.
Cost: 164 epochs, 64,124 steps of 128 images; not run yet. `short`, 3 epochs on one CPU core:
ShiftResNet20-3 35.59 % in 27 minutes, ShiftResNet20-9 39.40 % in 75.
"""

from configs import common
from shift_jax.errors import InputError

_DATASETS = ("cifar10", "cifar100")


def get_config(options="cifar100,shiftresnet20,expansion=3"):
    words, model_arguments = common.parse_options(options)
    names = [word for word in words if word not in ("short", "smoke")]
    if len(names) != 2 or names[0] not in _DATASETS:
        raise InputError(
            f"The options {options!r} do not name a dataset and a model: expected cifar10 or "
            "cifar100, then a model, as in configs/cifar.py:cifar100,shiftresnet20,expansion=3."
        )

    config = common.classification()
    config.model.name = names[1]
    config.model.initialization = "pytorch"
    for key, value in model_arguments.items():
        # As floats, whose overrides may be fractions: a field of a config keeps its type.
        is_scale = key in ("expansion", "factor") and isinstance(value, int)
        config.model[key] = float(value) if is_scale else value

    config.data.name = names[0]
    config.data.pad = 4
    config.data.flip = True
    # CIFAR-10's statistics for CIFAR-100 too, as the authors had them.
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2023, 0.1994, 0.2010)

    config.batch_size = 128
    config.epochs = 164.0
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries_epochs = (82, 123)
    config.optimizer.weight_decay = 5e-4
    config.optimizer.restart_momentum_each_epoch = True

    if "short" in words:
        config.model.initialization = "he"
        config.data.pad = 0
        config.batch_size = 64
        config.epochs = 4.0
        config.schedule.name = "cosine"
        config.schedule.warmup_epochs = 0.1
        config.optimizer.restart_momentum_each_epoch = False
    if "smoke" in words:
        config.data.train_split = "train[:512]"
        config.data.eval_split = "test[:256]"
        config.epochs = 2.0
        config.log_every_steps = 1
    return config
