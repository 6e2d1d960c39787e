import jax
import pytest

from shift_jax.config import ClassificationConfig
from shift_jax.layers import CSC
from shift_jax.models.cifar import CifarNet
from shift_jax.models.registry import _RECORDS, ModelRecord, register


def tiny(num_classes, expansion=1.0, initialization="he", dtype=None):
    """A shift network with all that the CIFAR ones have, which compiles in seconds."""
    return CifarNet(
        blocks_per_group=1,
        block=lambda **kwargs: CSC(expansion=expansion, expansion_reference="out", **kwargs),
        num_classes=num_classes,
        widths=(9, 10, 12),
        initialization=initialization,
        dtype=dtype,
    )


if "tiny" not in _RECORDS:
    register(ModelRecord("tiny", tiny, image_shape=(8, 8, 1), num_classes=10))


@pytest.fixture
def tiny_config():
    """Two epochs of 8 steps on the digits; the last batch of an epoch is smaller."""
    config = ClassificationConfig()
    config.model.name = "tiny"
    config.model.arguments = {"expansion": 1.0}
    config.data.name = "digits"
    config.data.pad = 1
    config.batch_size = 200
    config.eval_batch_size = 104
    config.epochs = 2.0
    config.log_every_steps = 3
    config.schedule.learning_rate = 0.1
    config.optimizer.restart_momentum_each_epoch = True
    config.tensorboard = False
    # 1,437 images leave a last batch of 37, which no number of devices but 1 divides.
    config.data.drop_remainder = True
    return config


@pytest.fixture(params=[1, 8], ids=["1 device", "8 devices"])
def devices(request):
    return jax.devices()[: request.param]
