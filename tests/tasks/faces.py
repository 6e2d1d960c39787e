"""A tiny face network, and folders of identities of parts of real photos."""

import numpy as np
from PIL import Image

from shift_jax.config import FacesConfig
from shift_jax.models.faces import FaceNet
from shift_jax.models.network import Network
from shift_jax.models.registry import _RECORDS, ModelRecord, register
from tests.data.photos import photos


class Flat(Network):
    """The pixels themselves as features."""

    num_classes: int = 0

    def __call__(self, x, train=False):
        return x.reshape(len(x), -1)


def tiny(num_classes, embedding_size=8, **common):
    trunk = Flat(num_classes=0, **common)
    return FaceNet(trunk=trunk, embedding_size=embedding_size, num_classes=num_classes, **common)


if "tinyfacenet" not in _RECORDS:
    record = ModelRecord("tinyfacenet", tiny, image_shape=(16, 16, 3), num_classes=0)
    register(record)


def write_faces(root, identities=8, images=4):
    """Fills root/p0, root/p1, … with 24×24 images, each folder's of one place in a photo."""
    rng = np.random.default_rng(0)
    for number in range(identities):
        photo = photos()[number % 2]
        top, left = 40 * (number // 2), 90 * (number // 2)
        folder = root / f"p{number}"
        folder.mkdir(parents=True)
        for i in range(images):
            y, x = rng.integers(6, size=2)
            part = photo[top + y : top + y + 96, left + x : left + x + 96]
            Image.fromarray(part).resize((24, 24)).save(folder / f"p{number}_{i + 1:04d}.png")
    return root


def faces_config(data_dir):
    config = FacesConfig()
    config.model.name = "tinyfacenet"
    config.data.data_dir = str(data_dir)
    config.data.image_size = 16
    config.data.held_out = 4
    config.data.flip = True
    config.data.drop_remainder = True
    config.data.max_unreadable_fraction = 0.1
    config.verification.num_folds = 3
    config.verification.num_pairs = 24
    config.batch_size = 16
    config.eval_batch_size = 8
    config.epochs = 6.0
    config.eval_every_epochs = 3.0
    config.schedule.learning_rate = 0.05
    config.optimizer.clip_norm = 1.0
    config.tensorboard = False
    return config
