"""Shift-based networks in JAX and Flax.

The operation, modules and networks of "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial
Convolutions" (Wu et al., CVPR 2018, arXiv:1711.08141).
"""

import importlib
import sys

from shift_jax.moved import MovedFinder
from shift_jax.version import __version__

__all__ = [
    "__version__",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "model_record",
]

_ROOMS = {
    "create_model": "models",
    "list_models": "models",
    "list_pretrained": "models",
    "load_pretrained": "models",
    "model_record": "models",
}
sys.meta_path.append(MovedFinder())


def __getattr__(name: str) -> object:
    # On first use: `shift-jax --help` and what needs the ops only do not wait for the networks.
    if name not in _ROOMS:
        raise AttributeError(f"module 'shift_jax' has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"shift_jax.{_ROOMS[name]}"), name)
    return globals()[name]
