"""Shift-based networks in JAX and Flax.

The operation, modules and networks of "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial
Convolutions" (Wu et al., CVPR 2018, arXiv:1711.08141).
"""

import importlib
import sys
from typing import TYPE_CHECKING

from shift_jax.moved import MovedFinder
from shift_jax.version import __version__

if TYPE_CHECKING:
    from shift_jax.counting import count_macs, count_parameters
    from shift_jax.layers import CSC, SC2, ActiveShift, Shift, ShiftConv, SparseShift
    from shift_jax.models import (
        create_model,
        list_models,
        list_pretrained,
        load_pretrained,
        model_record,
    )
    from shift_jax.ops import active_shift, shift, shift_conv, shift_offsets, sparse_shift

__all__ = [
    "CSC",
    "SC2",
    "ActiveShift",
    "Shift",
    "ShiftConv",
    "SparseShift",
    "__version__",
    "active_shift",
    "count_macs",
    "count_parameters",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "model_record",
    "shift",
    "shift_conv",
    "shift_offsets",
    "sparse_shift",
]

_ROOMS = {
    "ActiveShift": "layers",
    "CSC": "layers",
    "SC2": "layers",
    "Shift": "layers",
    "ShiftConv": "layers",
    "SparseShift": "layers",
    "active_shift": "ops",
    "count_macs": "counting",
    "count_parameters": "counting",
    "create_model": "models",
    "list_models": "models",
    "list_pretrained": "models",
    "load_pretrained": "models",
    "model_record": "models",
    "shift": "ops",
    "shift_conv": "ops",
    "shift_offsets": "ops",
    "sparse_shift": "ops",
}
sys.meta_path.append(MovedFinder())


def __getattr__(name: str) -> object:
    # On first use: `shift-jax --help` and what needs the ops only do not wait for the networks.
    if name not in _ROOMS:
        raise AttributeError(f"module 'shift_jax' has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"shift_jax.{_ROOMS[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
