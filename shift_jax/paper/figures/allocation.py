"""Shift allocations from the contributions of a trained network (Section 4).

`shiftresnet20(direction_weights=...)` and the other ShiftResNets take the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shift_jax.errors import InputError
from shift_jax.files import as_input_error
from shift_jax.ops import allocate_offsets
from shift_jax.paper.figures.contributions import (
    ModuleContributions,
    channel_contributions,
    direction_map,
)
from shift_jax.paper.figures.trained_network import trained_network
from shift_jax.paper.sweep.allocations import check_allocation_name
from shift_jax.training.runs.workdir import write_json

# The channels shifted first in shiftresnet20-1 and -3, and last in shiftresnet20-3.
_EXAMPLES = (16, 48, 192)


def weights_from_contributions(
    contributions: Sequence[ModuleContributions], keep: int = 5
) -> tuple[float, ...]:
    """Returns weights for `shift_jax.ops.allocate_offsets` that favor the strongest directions.

    The weight of a direction is the mean contribution of its channels, averaged over the modules
    with such channels. Every module counts the same: its contributions are divided by their mean
    over its directions.

    Args:
      contributions: the contributions of modules with one kernel size.
      keep: 1 .. k², the number of strongest directions that keep channels; the earlier direction
        wins a tie. Keeping all would hardly change the uniform allocation, since trained directions
        contribute nearly alike; the paper's cross keeps five.

    Returns:
      k² weights in row-major order, the strongest 1; 0 for a direction that is not kept or that no
      module has.

    Raises:
      InputError: no module, several kernel sizes, an impossible `keep`, or contributions that are
        all 0.
    """
    sizes = sorted({each.kernel_size for each in contributions})
    if len(sizes) != 1:
        raise InputError(
            f"The modules have {len(sizes)} kernel sizes {sizes}, but an allocation is for one: "
            "give modules of one kernel size."
        )
    directions = sizes[0] ** 2
    if not 1 <= keep <= directions:
        raise InputError(
            f"keep is {keep}, expected the number of directions that keep channels, 1 to "
            f"{directions}."
        )
    maps = np.stack([direction_map(each).ravel() for each in contributions])
    means = np.nanmean(maps, axis=1, keepdims=True)
    if not (means > 0).all():
        raise InputError(
            "A module's weights are all 0 and rank no direction: train the network first."
        )
    is_known = ~np.isnan(maps)
    weights = np.nansum(maps / means, axis=0) / np.maximum(is_known.sum(axis=0), 1)
    # Rounded first, so that the order is that of the written numbers.
    weights = (weights / weights.max()).round(4)
    weights[np.argsort(-weights, kind="stable")[keep:]] = 0
    return tuple(weights.tolist())


def write_allocation(
    output: Path, name: str, *, workdir: Path | None, weights: str | None, keep: int
) -> None:
    """Writes the allocation of a network's contributions as JSON, and prints it.

    Args:
      output: the file, {"name": NAME, "direction_weights": [...]}, ending in .json.
      name: the name of the allocation, other than that of a built-in one.
      workdir: the folder of a run.
      weights: the name of a shipped network instead.
      keep: see `weights_from_contributions`.

    Raises:
      InputError: a bad name, network, file or `keep`.
    """
    check_allocation_name(name)
    if output.suffix != ".json":
        raise InputError(
            f"{output} does not end in .json, by which the sweep recognizes an allocation: name "
            "another --output."
        )
    network = trained_network(workdir, weights)
    contributions = channel_contributions(network.model, network.variables, network.image_shape)
    direction_weights = weights_from_contributions(contributions, keep)
    with as_input_error(output, "name another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, {"name": name, "direction_weights": direction_weights})
    print(_maps(direction_weights, contributions[0].kernel_size))
    print(f"written to {output}")


def _maps(weights: Sequence[float], kernel_size: int) -> str:
    """The weights as a square, and the channels of each direction in layers of some widths."""
    columns = [("weight of a direction", [f"{weight:.3f}" for weight in weights])]
    for channels in _EXAMPLES:
        offsets = allocate_offsets(channels, kernel_size, weights) + kernel_size // 2
        direction = offsets[:, 0] * kernel_size + offsets[:, 1]
        counts = np.bincount(direction, minlength=kernel_size**2)
        columns.append((f"of {channels} channels", [f"{count:3d}" for count in counts]))
    blocks = []
    for title, cells in columns:
        rows = [" ".join(row) for row in np.reshape(cells, (kernel_size, -1))]
        width = max(len(title), len(rows[0]))
        blocks.append([line.ljust(width) for line in (title, *rows)])
    return "\n".join("   ".join(lines).rstrip() for lines in zip(*blocks, strict=True))
