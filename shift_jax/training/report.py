"""The results of a classification run: a short table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from shift_jax.counting import count_macs, count_parameters
from shift_jax.errors import InputError
from shift_jax.files import output_file
from shift_jax.tasks.classification import Classification
from shift_jax.training.evaluation import TrainedModel
from shift_jax.training.runs.history import read_history
from shift_jax.training.runs.selection import checkpoint_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EXAMPLES = 12
# Okabe and Ito's colors, which color-blind readers can tell apart.
_TRAIN_COLOR, _TEST_COLOR, _WRONG_COLOR = "#0072B2", "#D55E00", "#CC3311"


def report(workdir: Path) -> dict[str, float]:
    """Evaluates the newest checkpoint, prints the table and draws the picture.

    Args:
      workdir: the folder of a classification run.

    Returns:
      "train_top1" and "test_top1" as fractions, "parameters" and "macs".

    Raises:
      InputError: no folder of a run, no checkpoint yet, or another task than classification.
    """
    checkpoint = checkpoint_of(workdir, "latest")
    trained = TrainedModel(checkpoint)
    if trained.config.task != "classification":
        raise InputError(
            f"{workdir} is a run of the task {trained.config.task!r}, expected classification: "
            "name another workdir."
        )
    task = trained.task
    assert isinstance(task, Classification)
    train = trained.evaluate(trained.config.data.train_split)
    test = trained.evaluate(task.eval_split)
    picture = workdir / "report.png"
    _draw(trained, task, workdir, test["top1"], picture)
    figures = {
        "train_top1": train["top1"],
        "test_top1": test["top1"],
        "parameters": count_parameters(task.model, task.image_shape),
        "macs": count_macs(task.model, task.image_shape),
    }
    height, width, _ = task.image_shape
    print(
        f"\n{trained.config.model.name} on {trained.config.data.name}, "
        f"{train['examples']:,} training and {test['examples']:,} test images of "
        f"{height}×{width}\n"
        f"  train top-1 {100 * train['top1']:.2f} %\n"
        f"  test top-1 {100 * test['top1']:.2f} %\n"
        f"  parameters {figures['parameters']:,}\n"
        f"  MACs {figures['macs']:,} an image\n"
        f"  checkpoint {checkpoint}\n"
        f"  picture {picture.absolute()}"
    )
    return figures


def _draw(
    trained: TrainedModel, task: Classification, workdir: Path, test_top1: float, target: Path
) -> None:
    # Figure needs no window system and has no global state, unlike pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    curves, examples = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.15, 1))[0]
    top, bottom = curves.subplots(2, 1, sharex=True)
    _draw_curves(top, bottom, read_history(workdir), trained.task.steps_per_epoch)
    curves.suptitle(f"{trained.config.model.name} on {trained.config.data.name}", fontsize=11)
    _draw_examples(list(examples.subplots(3, 4).flat), task, trained.variables)
    examples.suptitle(
        f"Test images and predictions (test top-1 {100 * test_top1:.2f} %)", fontsize=11
    )
    with output_file(target) as temporary:
        figure.savefig(temporary)


def _draw_curves(top: Axes, bottom: Axes, history: list[dict], steps_per_epoch: int) -> None:
    drawn = [record for record in history if {"loss", "top1"} <= record.keys()]
    train = [record for record in drawn if record["kind"] == "train"]
    test = [record for record in drawn if record["kind"] == "eval"]
    # Means over an epoch, since single batches are noise; over less if there are few epochs.
    window = max(1, min(steps_per_epoch, len(train) // 20))
    chunks = [train[i : i + window] for i in range(0, len(train) - window + 1, window)]
    for axes, key, factor, label in ((top, "loss", 1, "loss"), (bottom, "top1", 100, "top-1 in %")):
        axes.plot(
            [chunk[-1]["step"] / steps_per_epoch for chunk in chunks],
            [factor * np.mean([record[key] for record in chunk]) for chunk in chunks],
            color=_TRAIN_COLOR,
            label="train (augmented)",
        )
        axes.plot(
            [record["step"] / steps_per_epoch for record in test],
            [factor * record[key] for record in test],
            "o-",
            color=_TEST_COLOR,
            label="test",
            markersize=3,
        )
        axes.set_ylabel(label)
        axes.grid(alpha=0.3, linewidth=0.5)
    top.set_yscale("log")
    top.legend(frameon=False, fontsize=9)
    bottom.set_xlabel("epoch")


def _draw_examples(axes: list[Axes], task: Classification, variables: dict) -> None:
    source = task.source(task.eval_split)
    chosen = np.linspace(0, len(source) - 1, min(_EXAMPLES, len(source))).astype(int)
    elements = [source[int(index)] for index in chosen]
    images = np.stack([element["image"] for element in elements])
    predictions = np.asarray(jax.jit(task.logits)(variables, images)).argmax(-1)
    names = source.class_names or [str(label) for label in range(source.num_classes)]
    for ax in axes:
        ax.axis("off")
    for ax, element, prediction in zip(axes, elements, predictions, strict=False):
        image = element["image"]
        ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
        right = prediction == element["label"]
        title = names[prediction] if right else f"{names[prediction]}, is {names[element['label']]}"
        ax.set_title(title, fontsize=10, color="black" if right else _WRONG_COLOR)
