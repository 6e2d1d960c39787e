"""A picture of ROC curves."""

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
    """Returns for each false accept rate (FAR) the largest true accept rate (TAR) within it.

    The first FAR is that of one false accept, 1 / different pairs: smaller rates are not measured,
    and a logarithmic axis has no FAR of 0.

    Args:
      scores: float [P], similarities as `verification.roc` takes them.
      same: bool [P].

    Returns:
      (FAR, TAR), float64 each: each TAR holds from its FAR to the next one.

    Raises:
      InputError: `verification.roc` refuses the scores.
    """
    far, tar, _ = roc(scores, same)
    lowest = 1 / np.sum(~np.asarray(same))
    corners = np.union1d([lowest], far[far >= lowest])
    return corners, tar[np.searchsorted(far, corners, side="right") - 1]


def save_roc(
    path: str | os.PathLike[str], curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Draws the true accept rate against the false accept rate, 1e-4 to 1 on a logarithmic axis.

    `steps` computes the curves. The legend has the areas under the curves (AUC) on linear axes.

    Args:
      path: of the picture, whose extension chooses the format, such as .png, .svg or .pdf. An old
        picture is replaced whole, or kept if drawing fails.
      curves: (scores float [P], same bool [P]) by name, as `verification.verify` takes them.

    Raises:
      InputError: no curve, an unsupported extension, a file that cannot be written, or scores
        that `verification.roc` refuses.
    """
    # They take seconds to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_auc_score

    path = pathlib.Path(path)
    formats = FigureCanvasAgg.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(
            f"{path} has an unsupported image extension: expected one such as .png or .svg."
        )
    if not curves:
        raise InputError(
            "There is no ROC curve to draw: give the scores and labels of at least one."
        )

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
