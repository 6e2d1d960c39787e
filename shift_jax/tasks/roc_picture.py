"""A picture of ROC curves for people to look at."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from shift_jax.errors import InputError
from shift_jax.files import output_file
from shift_jax.tasks.verification import roc

_LOWEST_FAR = 1e-4


def steps(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns at each false accept rate the largest true accept rate that stays within it.

    The first is that of one false accept, 1 / different pairs: what is left of it was not measured,
    and a logarithmic axis has no FAR 0.

    Args:
      scores: float [P], similarities as `verification.roc` takes them.
      same: bool [P].

    Returns:
      (FAR, TAR), float64 each: the TAR holds from its FAR to the next one.

    Raises:
      InputError: what `verification.roc` refuses.
    """
    far, tar, _ = roc(scores, same)
    lowest = 1 / np.sum(~np.asarray(same))
    corners = np.union1d([lowest], far[far >= lowest])
    return corners, tar[np.searchsorted(far, corners, side="right") - 1]


def save_roc(
    path: str | os.PathLike[str], curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Draws the true accept rate over the false accept rate, 1e-4 to 1 on a logarithmic axis.

    The curves are those of `steps`. The legend has the areas under the curves (AUC) on linear axes.

    Args:
      path: where to write; the ending decides the format, such as .png, .svg or .pdf. A picture
        that is there is replaced at once, or kept where drawing fails.
      curves: name to (scores float [P], same bool [P]) as `verification.verify` takes them.

    Raises:
      InputError: no curve, an ending that is no picture, a file that cannot be written, or what
        `verification.roc` refuses.
    """
    # They take seconds to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_auc_score

    path = pathlib.Path(path)
    formats = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(f"{path} has an ending for no picture, expected one such as .png or .svg.")
    if not curves:
        raise InputError("There is no ROC curve to draw: give scores and labels of one at least.")

    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, (scores, same) in curves.items():
        far, tar = steps(scores, same)
        auc = roc_auc_score(same, scores)
        axes.plot(far, tar, drawstyle="steps-post", label=f"{name}: AUC {100 * auc:.2f} %")
    chance = np.geomspace(_LOWEST_FAR, 1, 200)
    axes.plot(chance, chance, color="grey", linestyle="--", label="chance: AUC 50 %")
    axes.set(
        xscale="log",
        xlim=(_LOWEST_FAR, 1),
        ylim=(0, 1.01),
        xlabel="False accept rate (FAR)",
        ylabel="True accept rate (TAR)",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best")

    with output_file(path) as temporary:
        figure.savefig(temporary)
