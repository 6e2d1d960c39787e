"""Shift allocations other than the paper's uniform one (Section 4), from a trained network.

    python -m shift_jax.analysis.allocation --workdir=runs/shiftresnet20-9 --output=alloc.json

writes {"name": "from_contributions", "direction_weights": [...]}: the mean contribution of each
direction, which `shiftresnet20(direction_weights=...)` and the other ShiftResNets take. --drop=0.8
leaves out the directions that contribute less than 0.8 of the strongest one.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from shift_jax.analysis.contributions import (
    ModuleContributions,
    channel_contributions,
    direction_map,
)
from shift_jax.errors import InputError
from shift_jax.training.workdir import write_json

NAMED_ALLOCATIONS: dict[str, tuple[float, ...] | None] = {
    "uniform": None,
    "cross": (0, 1, 0, 1, 1, 1, 0, 1, 0),
}
"""Direction weights of 3×3 shifts by name: the paper's allocation, and the cross into which it
found "the largest contributions fall" (Section 4.2)."""


def weights_from_contributions(
    contributions: Sequence[ModuleContributions], drop: float = 0.0
) -> tuple[float, ...]:
    """Returns what `shift_jax.ops.allocate_offsets` takes: more channels for strong directions.

    A direction weighs the mean contribution of its channels, averaged over the modules that have
    such channels. Each module counts the same: its contributions are divided by their mean over
    its directions.

    Args:
      contributions: of modules of one kernel size.
      drop: 0 .. 1; directions that weigh less than this fraction of the strongest get 0.

    Returns:
      k² weights in row-major order, the strongest 1; 0 for a direction that no module has.

    Raises:
      InputError: no module, several kernel sizes, a fraction out of range, or a network whose
        contributions are all 0.
    """
    sizes = sorted({each.kernel_size for each in contributions})
    if len(sizes) != 1:
        raise InputError(
            f"The modules have shifts of {len(sizes)} kernel sizes {sizes}, but an allocation is "
            "of one: give modules of one kernel size."
        )
    if not 0 <= drop <= 1:
        raise InputError(f"drop is {drop}, expected a fraction from 0 to 1.")
    maps = np.stack([direction_map(each).ravel() for each in contributions])
    means = np.nanmean(maps, axis=1, keepdims=True)
    if not (means > 0).all():
        raise InputError("A module's weights are all 0, which rank no direction: train it first.")
    is_known = ~np.isnan(maps)
    weights = np.nansum(maps / means, axis=0) / np.maximum(is_known.sum(axis=0), 1)
    weights /= weights.max()
    return tuple(np.where(weights < drop, 0.0, weights.round(4)).tolist())


def main() -> None:
    """Reads the flags and writes the allocation."""
    from shift_jax.analysis.trained_network import trained_network

    if not re.fullmatch(r"\w+", _NAME.value):
        raise InputError(
            f"name is {_NAME.value!r}, expected letters, digits and underscores, such as "
            "from_contributions."
        )
    network = trained_network(_WORKDIR.value, _WEIGHTS.value)
    contributions = channel_contributions(network.model, network.variables, network.image_shape)
    weights = weights_from_contributions(contributions, _DROP.value)
    output = Path(_OUTPUT.value)
    try:
        write_json(output, {"name": _NAME.value, "direction_weights": weights})
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}): give another --output."
        ) from error
    rows = np.reshape(weights, (contributions[0].kernel_size, -1))
    print("\n".join(" ".join(f"{weight:.3f}" for weight in row) for row in rows))
    print(f"written to {output}")


if __name__ == "__main__":
    # Here, because sweeps take names of allocations where not all that commands need is installed.
    from shift_jax.training import cli

    _WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
    _WEIGHTS = flags.DEFINE_string("weights", None, "Name of a shipped network instead.")
    _DROP = flags.DEFINE_float("drop", 0.0, "Leaves out directions below this share of the best.")
    _NAME = flags.DEFINE_string("name", "from_contributions", "Of the allocation.")
    _OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    sys.exit(cli.run(main))
