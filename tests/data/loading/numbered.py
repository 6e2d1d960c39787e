"""Examples that are recognized by their number, and batches of them."""

import dataclasses
import itertools

import numpy as np

from shift_jax.data import pad_crop_flip, train_batches

TRANSFORM = pad_crop_flip(1, True)
KEEP = pad_crop_flip(0, False)


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Example i is a 4x4 image of the value i + 1, labeled i."""

    length: int
    num_classes: int = 256
    class_names: None = None
    image_shape: tuple[int, int, int] = (4, 4, 1)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": np.full((4, 4, 1), index + 1, np.uint8), "label": np.int32(index)}


def take(count, source=None, transform=TRANSFORM, **kwargs):
    source = Numbered(10) if source is None else source
    kwargs = {"batch_size": 4, "seed": 0} | kwargs
    return list(itertools.islice(train_batches(source, transform, **kwargs), count))


def labels(batches):
    return [batch["label"].tolist() for batch in batches]


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
            assert batch[key].dtype == other[key].dtype
