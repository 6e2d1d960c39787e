"""Any TensorFlow Datasets image classification set, read by index and without TensorFlow."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shift_jax.data.decode.images import EncodedImage, check_image_size, resize_and_centre_crop
from shift_jax.data.decode.unreadable import UndecodableError, UnreadableImageError
from shift_jax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """One split of a TFDS set whose images have one size. A `Source`."""

    records: Sequence[dict[str, Any]]
    """With the images as arrays."""
    num_classes: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    eval_crop: float = 1.0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        record = self.records[index]
        image = record["image"]
        if image.shape != self.image_shape or self.eval_crop != 1:
            image = resize_and_centre_crop(image, self.image_shape[0], self.eval_crop)
        return {"image": image, "label": np.int32(record["label"])}


@dataclasses.dataclass(frozen=True)
class EncodedTfdsSource:
    """One split of a TFDS set whose images differ in size. A `Source`."""

    name: str
    """Of the set and the split, for what is said of its records."""
    records: Sequence[dict[str, Any]]
    """With the images as the bytes of their files."""
    num_classes: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    eval_crop: float = 1.0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        example = self.encoded(index)
        try:
            image = example["image"].centre_crop(self.image_shape[0], self.eval_crop)
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {"image": image, "label": example["label"]}

    def encoded(self, index: int) -> dict:
        """The example at `index` with an `EncodedImage`."""
        record = self._record(index)
        try:
            image = EncodedImage(record["image"], self.image_shape[-1])
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {"image": image, "label": np.int32(record["label"])}

    def describe(self, index: int) -> str:
        """What the record at `index` is called."""
        return f"Record {index} of {self.name}"

    def _record(self, index: int) -> dict[str, Any]:
        return self.records[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelledTfdsSource(EncodedTfdsSource):
    """Some records of a TFDS set, with other labels than theirs. A `Source`."""

    positions: np.ndarray
    """int64 [n], in the records."""
    labels: np.ndarray
    """int32 [n]."""

    def __len__(self) -> int:
        return len(self.positions)

    def describe(self, index: int) -> str:
        """What the record at `index` is called."""
        return super().describe(int(self.positions[index]))

    def _record(self, index: int) -> dict[str, Any]:
        record = self.records[int(self.positions[index])]
        return {"image": record["image"], "label": self.labels[index]}


def load_tfds(
    name: str,
    split: str,
    data_dir: str | None,
    image_size: int | None,
    eval_crop: float,
    other_names: Sequence[str] = (),
) -> TfdsSource | EncodedTfdsSource:
    """Opens one split of a prepared TFDS set; downloads and prepares nothing.

    Args:
      name: TFDS name, with config and version if wanted: "cifar100", "cifar100:3.0.2".
      split: TFDS split, slices included: "test", "train[:80%]".
      data_dir: TFDS folder; None for TFDS's default.
      image_size: Side in pixels of the square images returned; None keeps the set's size.
      eval_crop: Fraction of the shorter side that these keep.
      other_names: Names outside TFDS to offer when `name` is unknown.

    Returns:
      The source.

    Raises:
      InputError: `name` is unknown, not prepared, not of images with labels, or not in a
        random-access format; `split` is unknown or empty; `image_size` is needed.
    """
    if image_size is not None:
        check_image_size(image_size)
    builder = _builder(name, data_dir, other_names)
    image_shape = _image_shape(name, builder.info.features, image_size)
    features = builder.info.features
    decoders = None
    if None in features["image"].shape:
        import tensorflow_datasets as tfds

        decoders = {"image": tfds.decode.SkipDecoding()}
    records = _records(name, split, data_dir, builder, decoders)
    label = features["label"]
    common = {
        "records": records,
        "num_classes": label.num_classes,
        "class_names": tuple(label.names) if label.names else None,
        "image_shape": image_shape,
        "eval_crop": eval_crop,
    }
    if decoders is None:
        return TfdsSource(**common)
    return EncodedTfdsSource(f"{name} {split}", **common)


def load_texts(
    name: str, split: str, data_dir: str | None
) -> tuple[Sequence[dict[str, Any]], list[str]]:
    """Opens one split of a prepared TFDS set with an "image" and a text as its "label", as lfw.

    Args:
      name: TFDS name.
      split: TFDS split, slices included.
      data_dir: TFDS folder; None for TFDS's default.

    Returns:
      The records, their images as the bytes of their files, and the label of each: all records
      are read once for these, and no image is decoded.

    Raises:
      InputError: as `load_tfds`.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, ())
    decoders = {"image": tfds.decode.SkipDecoding()}
    records = _records(name, split, data_dir, builder, decoders)
    return records, [_text(records[i]["label"]) for i in range(len(records))]


def load_unlabelled(
    name: str, split: str, data_dir: str | None, image_size: int
) -> RelabelledTfdsSource:
    """Opens one split of a prepared TFDS set that has an "image", with label 0 for all.

    Args:
      name, split, data_dir: as for `load_texts`.
      image_size: Side in pixels of the square images returned.

    Raises:
      InputError: as `load_tfds`.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, ())
    if not isinstance(dict(builder.info.features).get("image"), tfds.features.Image):
        raise InputError(
            f"{name} has no 'image', expected a TFDS set of photos, such as coco: its features are "
            f"{', '.join(sorted(builder.info.features))}."
        )
    # Without all that a set knows of its images.
    decoders = tfds.decode.PartialDecoding(
        {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
    )
    records = _records(name, split, data_dir, builder, decoders)
    return RelabelledTfdsSource(
        f"{name} {split}",
        records,
        1,
        None,
        (image_size, image_size, 3),
        positions=np.arange(len(records)),
        labels=np.zeros(len(records), np.int32),
    )


def _text(value: Any) -> str:
    # Bytes in a prepared set, and a string in an array in TFDS's mock of one.
    value = np.asarray(value, object).item()
    return value.decode() if isinstance(value, bytes) else value


def _records(
    name: str,
    split: str,
    data_dir: str | None,
    builder: "tfds.core.DatasetBuilder",
    decoders: "dict[str, Any] | tfds.decode.PartialDecoding | None",
) -> Sequence[dict[str, Any]]:
    try:
        return builder.as_data_source(split, decoders=decoders)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(_why_not_readable(name, split, data_dir, builder, error)) from error


def _builder(
    name: str, data_dir: str | None, other_names: Sequence[str]
) -> "tfds.core.DatasetBuilder":
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # Community data sets are listed from the network.
        known = [*other_names, *tfds.list_builders(with_community_datasets=False)]
        raise InputError(
            f"No data set is called {name!r}; expected {', '.join(other_names)} or a name from "
            f"tfds.list_builders().{did_you_mean(name, known)}"
        ) from error
    except (ValueError, AssertionError) as error:
        # TFDS puts a dump of its arguments before the reason.
        reason = str(error).splitlines()[0].rpartition('}": ')[2].rstrip(".: ")
        raise InputError(
            f"TFDS can not open {name!r}: {reason}; expected name, name/config or name:version."
        ) from error
    if not (builder.data_path / "dataset_info.json").exists():
        return builder
    # A builder made from code does not see the formats that a conversion has added.
    return tfds.builder_from_directory(builder.data_path)


def _image_shape(
    name: str, features: "tfds.features.FeaturesDict", image_size: int | None
) -> tuple[int, int, int]:
    import tensorflow_datasets as tfds

    image, label = (dict(features).get(key) for key in ("image", "label"))
    if (
        not isinstance(image, tfds.features.Image)
        or image.np_dtype != np.uint8
        or image.shape[-1] not in (1, 3)
        or not isinstance(label, tfds.features.ClassLabel)
    ):
        raise InputError(
            f"{name} is not an image classification set: expected a uint8 'image' and a class "
            f"'label', found the features {', '.join(sorted(features))}; choose another data set."
        )
    if image_size is not None:
        return (image_size, image_size, image.shape[-1])
    if None in image.shape:
        raise InputError(
            f"The images of {name} differ in size; set image_size to the side in pixels they "
            "should get."
        )
    return image.shape


def _why_not_readable(
    name: str,
    split: str,
    data_dir: str | None,
    builder: "tfds.core.DatasetBuilder",
    error: Exception,
) -> str:
    """The sentence for a set that exists but whose `split` TFDS could not open."""
    splits, folder = builder.info.splits, builder.data_path
    if not splits:
        where = "" if data_dir is None else f"data_dir={str(data_dir)!r}, "
        # Not `tfds build`: the command line does not start without apache-beam.
        return (
            f"{name} is not prepared in {folder}; prepare it (this downloads) with: "
            'python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()\""
        )
    if isinstance(error, NotImplementedError):
        return (
            f"{name} in {folder} is stored as {builder.info.file_format.value}, which can not be "
            "read by index; convert it (after pip install apache-beam) with: "
            "python -m tensorflow_datasets.scripts.convert_format "
            f"--dataset_version_dir={folder} --out_file_format=array_record"
        )
    try:
        empty = splits[split].num_examples == 0
    except (ValueError, KeyError):
        return (
            f"{name} has no split {split!r}; it has: {', '.join(sorted(splits))}, and slices such "
            f"as 'train[:80%]'.{did_you_mean(split, splits)}"
        )
    if empty:
        return f"Split {split!r} of {name} holds no examples; choose a larger slice."
    return f"TFDS can not read split {split!r} of {name} in {folder}: {error}"
