"""Networks of runs, ready for photos: for painting, telling classes, and comparing faces."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from shift_jax.config import DataConfig, from_dict
from shift_jax.data.class_names import ClassName
from shift_jax.errors import InputError
from shift_jax.models import create_model
from shift_jax.models.classifier import (
    Classifier,
    class_count,
    load_shipped_classifier,
    named_classes,
)
from shift_jax.models.style import StyleTransformer
from shift_jax.models.stylizer import Stylizer, load_style
from shift_jax.tasks.faces import Faces
from shift_jax.tasks.verifier import Verifier
from shift_jax.training.evaluation import TrainedModel
from shift_jax.training.runs.checkpoint_files import read_manifest, restore_variables
from shift_jax.training.runs.selection import checkpoint_of, find_checkpoint
from shift_jax.training.runs.trained_data import learned_class_names
from shift_jax.training.runs.workdir import read_config

# Sides in pixels of the images of datasets whose runs take them as they are.
_SIZES = {"digits": 8, "cifar10": 32, "cifar100": 32, "mnist": 28, "fashion_mnist": 28}


def load_stylizers(
    styles: Sequence[str], runs: Sequence[str | os.PathLike[str]], tile_size: int = 0
) -> dict[str, Stylizer]:
    """Returns networks that paint, by the names of the styles and of the runs' folders.

    Args:
      styles: names of styles that come with the package.
      runs: see `load_stylizer`. Where a folder's name is taken, it gets a number.
      tile_size: see `Stylizer`.

    Raises:
      InputError: no such style, run or checkpoint, a damaged one, or one of another network.
    """
    stylizers = {name: load_style(name, tile_size) for name in dict.fromkeys(styles)}
    for run in dict.fromkeys(map(Path, runs)):
        name = run.resolve().name
        numbered = (f"{name}-{number}" for number in range(2, len(stylizers) + 3))
        name = next(each for each in (name, *numbered) if each not in stylizers)
        stylizers[name] = load_stylizer(run, tile_size)
    return stylizers


def load_stylizer(folder: str | os.PathLike[str], tile_size: int = 0) -> Stylizer:
    """Returns the network of a run's newest checkpoint, or of one checkpoint.

    Raises:
      InputError: no such run or checkpoint, a damaged one, or one of another network.
    """
    path = _existing_folder(folder)
    if not os.path.isdir(path / "manifest"):
        read_config(path)  # Refuses a folder that is not a run's.
        path = find_checkpoint(path / "checkpoints", "latest", best_metric="")
    variables, config = restore_variables(path)
    trained = from_dict(config).model
    arguments = {k: value for k, value in trained.arguments.items() if k != "features_only"}
    # In float32, whatever the data type of the training.
    model = create_model(trained.name, initialization=trained.initialization, **arguments)
    if not isinstance(model, StyleTransformer):
        raise InputError(
            f"{folder} has the weights of another network, {trained.name}: expected a run of "
            "configs/style.py, or --style=NAME."
        )
    return Stylizer(model, {"params": variables["params"]}, tile_size)


def load_verifier(
    folder: str | os.PathLike[str], *, aligned: bool = False, face: str = "largest"
) -> Verifier:
    """Returns the face network of a run's best checkpoint, or of one checkpoint.

    Args:
      folder: of a run or of one of its checkpoints.
      aligned, face: see `Verifier`.

    Raises:
      InputError: no such run or checkpoint, or not of a face network.
    """
    path = _existing_folder(folder)
    if (path / "checkpoints").is_dir():
        _check_faces(read_config(path)["task"], path)
        path = checkpoint_of(path, "best")
    trained = TrainedModel(path)
    _check_faces(trained.config.task, path)
    assert isinstance(trained.task, Faces)
    threshold = trained.metrics.get("threshold")
    return Verifier(trained.task, trained.variables, threshold, aligned=aligned, face=face)


def load_classifier(
    weights: str | None,
    folder: str | os.PathLike[str] | None,
    which: Literal["latest", "best"] = "latest",
    classes: Sequence[ClassName] | None = None,
) -> Classifier:
    """Returns a trained classifier: shipped weights, or one of a run's checkpoints.

    Args:
      weights: name of shipped weights; None for `folder`.
      folder: of a run or of one of its checkpoints.
      which: "latest" or "best", the checkpoint of a run.
      classes: names of its classes, in place of those that it was trained on.

    Raises:
      InputError: no such weights, run or checkpoint, or not of a classifier.
    """
    if weights is not None:
        return load_shipped_classifier(weights, classes)
    assert folder is not None
    path = _existing_folder(folder)
    if not os.path.isdir(path / "manifest"):
        path = checkpoint_of(path, which)
    variables, values = restore_variables(path)
    config = from_dict(values)
    if config.task != "classification":
        raise InputError(
            f"{folder} has a network of the task {config.task!r}, expected a classifier: name "
            "another --model."
        )
    count = class_count(variables)
    trained = config.model
    arguments = {k: value for k, value in trained.arguments.items() if k != "features_only"}
    labels = learned_class_names(read_manifest(path)) or ()
    return Classifier(
        # In float32, whatever the data type of the training.
        model=create_model(trained.name, num_classes=count, **arguments),
        variables=variables,
        classes=named_classes(labels, count, classes, str(folder)),
        image_shape=_image_shape(config.data, folder),
        mean=config.data.mean,
        std=config.data.std,
        crop=config.data.eval_crop,
    )


def _image_shape(data: DataConfig, folder: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Returns the shape of the images of a run."""
    size = data.image_size or _SIZES.get(data.name.partition(":")[0])
    if size is None:
        raise InputError(
            f"{folder} does not say how large the images of {data.name!r} are: set "
            "data.image_size in its config.json."
        )
    return (size, size, len(data.mean))


def _existing_folder(folder: str | os.PathLike[str]) -> Path:
    if not os.path.isdir(folder):
        raise InputError(f"There is no folder {folder}: name that of a run, or of a checkpoint.")
    return Path(folder)


def _check_faces(task: str, path: Path) -> None:
    if task != "faces":
        raise InputError(
            f"{path} is a run of the task {task!r}, expected one that was trained on faces, by "
            "configs/shiftfacenet.py."
        )
