"""Opens the image datasets of TensorFlow Datasets, which it reads by index, without TensorFlow."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.data.sources.tfds_source import EncodedTfdsSource, RelabeledTfdsSource, TfdsSource
from shift_jax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def load_tfds(
    name: str,
    split: str,
    data_dir: str | None,
    image_size: int | None,
    eval_crop: float,
    other_names: Sequence[str] = (),
) -> TfdsSource | EncodedTfdsSource:
    """Opens one split of a prepared TFDS dataset. It downloads and prepares nothing.

    Args:
      name: TFDS name, optionally with config and version: "cifar100", "cifar100:3.0.2".
      split: TFDS split, including slices: "test", "train[:80%]".
      data_dir: TFDS folder; None for TFDS's default.
      image_size: Side of the square images in pixels; None keeps the size of the dataset.
      eval_crop: Fraction of the shorter side that images keep.
      other_names: Names outside TFDS to suggest when `name` is unknown.

    Raises:
      InputError: the dataset is unknown, not prepared, has no images with labels, or is not in a
        random-access format; the split is unknown or empty; or `image_size` is missing.
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
    """Opens one split of a prepared TFDS dataset whose "label" is a text, such as lfw.

    It reads all records once for their labels, but decodes no image.

    Args:
      name: TFDS name.
      split: TFDS split, including slices.
      data_dir: TFDS folder; None for TFDS's default.

    Returns:
      The records, whose images are the bytes of their files, and the label of each.

    Raises:
      InputError: as for `load_tfds`.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, ())
    decoders = {"image": tfds.decode.SkipDecoding()}
    records = _records(name, split, data_dir, builder, decoders)
    return records, [_text(records[i]["label"]) for i in range(len(records))]


def load_unlabeled(
    name: str, split: str, data_dir: str | None, image_size: int
) -> RelabeledTfdsSource:
    """Opens one split of a prepared TFDS dataset that has an "image", with label 0 for all.

    Args:
      name, split, data_dir: As for `load_texts`.
      image_size: Side of the square images in pixels.

    Raises:
      InputError: as for `load_tfds`.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir, ())
    if not isinstance(dict(builder.info.features).get("image"), tfds.features.Image):
        raise InputError(
            f"{name} has no 'image', only the features "
            f"{', '.join(sorted(builder.info.features))}: choose a TFDS dataset of photos, such as "
            "coco."
        )
    # This skips all other features, such as annotations.
    decoders = tfds.decode.PartialDecoding(
        {"image": True}, decoders={"image": tfds.decode.SkipDecoding()}
    )
    records = _records(name, split, data_dir, builder, decoders)
    return RelabeledTfdsSource(
        f"{name} {split}",
        records,
        1,
        None,
        (image_size, image_size, 3),
        positions=np.arange(len(records)),
        labels=np.zeros(len(records), np.int32),
    )


def _text(value: Any) -> str:
    # A prepared dataset has bytes; TFDS's mock has a string in an array.
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
        # Listing community datasets would need the network.
        known = [*other_names, *tfds.list_builders(with_community_datasets=False)]
        raise InputError(
            f"There is no dataset {name!r}; expected {', '.join(other_names)} or a name from "
            f"tfds.list_builders().{did_you_mean(name, known)}"
        ) from error
    except (ValueError, AssertionError) as error:
        # TFDS puts a dump of its arguments in front of the reason.
        reason = str(error).splitlines()[0].rpartition('}": ')[2].rstrip(".: ")
        raise InputError(
            f"TFDS cannot open {name!r}: {reason}; expected name, name/config or name:version."
        ) from error
    if not (builder.data_path / "dataset_info.json").exists():
        return builder
    # A builder made from code does not see formats that a conversion has added.
    return tfds.builder_from_directory(builder.data_path)


def _image_shape(
    name: str, features: "tfds.features.FeaturesDict", image_size: int | None
) -> tuple[int, int, int]:
    import tensorflow_datasets as tfds

    image, label = (dict(features).get(key) for key in ("image", "label"))
    if (
        image is None
        or not isinstance(image, tfds.features.Image)
        or image.np_dtype != np.uint8
        or image.shape[-1] not in (1, 3)
        or not isinstance(label, tfds.features.ClassLabel)
    ):
        raise InputError(
            f"{name} is not an image classification dataset: expected a uint8 'image' and a class "
            f"'label', found the features {', '.join(sorted(features))}; choose another dataset."
        )
    if image_size is not None:
        return (image_size, image_size, image.shape[-1])
    if None in image.shape:
        raise InputError(
            f"The images of {name} differ in size; set image_size to the side in pixels to resize "
            "them to."
        )
    return image.shape


def _why_not_readable(
    name: str,
    split: str,
    data_dir: str | None,
    builder: "tfds.core.DatasetBuilder",
    error: Exception,
) -> str:
    """Explains why TFDS could not open a split of a dataset that exists."""
    splits, folder = builder.info.splits, builder.data_path
    if not splits:
        where = "" if data_dir is None else f"data_dir={str(data_dir)!r}, "
        # `tfds build` does not start without apache-beam.
        return (
            f"{name} is not prepared in {folder}; prepare it (this downloads) with: "
            'python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()\""
        )
    if isinstance(error, NotImplementedError):
        return (
            f"{name} in {folder} is stored as {builder.info.file_format.value}, which cannot be "
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
    return f"TFDS cannot read split {split!r} of {name} in {folder}: {error}"
