"""A shift network that compiles in seconds, as a config file of train.py.

python train.py --config=tests/survival/tiny.py --workdir=…
python train.py --config=tests/survival/tiny.py:cifar100 --workdir=… --config.data.data_dir=…
"""

from ml_collections import ConfigDict

from shift_jax.config import ClassificationConfig, nested
from shift_jax.layers import CSC
from shift_jax.models.cifar import CifarNet
from shift_jax.models.registry import ModelRecord, list_models, register

STEPS_PER_EPOCH = 7
"""Of both datasets; an evaluation comes after each epoch."""


def survivor(num_classes, initialization="he", dtype=None):
    return CifarNet(
        blocks_per_group=1,
        block=lambda **kwargs: CSC(expansion=1.0, expansion_reference="out", **kwargs),
        num_classes=num_classes,
        widths=(9, 10, 12),
        initialization=initialization,
        dtype=dtype,
    )


def get_config(dataset="digits"):
    if "survivor" not in list_models():
        register(ModelRecord("survivor", survivor, image_shape=(8, 8, 1), num_classes=10))
    config = ClassificationConfig()
    config.model.name = "survivor"
    config.data.name = dataset
    config.data.pad = 1
    config.data.drop_remainder = True
    config.batch_size = 200
    config.eval_batch_size = 4  # Many batches: an evaluation is to be long enough to be hit.
    config.epochs = 16.0
    config.log_every_steps = 1
    config.checkpoint_every_steps = 3
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.tensorboard = False
    if dataset == "cifar100":
        config.data.flip = True
        config.data.mean = (0.5, 0.5, 0.5)
        config.data.std = (0.25, 0.25, 0.25)
        config.data.train_split = "train[:1400]"
        config.data.eval_split = "test[:400]"
        config.data.num_workers = 1
        config.eval_batch_size = 16
        config.epochs = 5.0  # Each evaluation starts workers, which import TFDS.
    return ConfigDict(nested(config))
