"""Shift-based networks in JAX and Flax.

The operation, modules and networks of "Shift: A Zero FLOP, Zero Parameter Alternative to Spatial
Convolutions" (Wu et al., CVPR 2018, arXiv:1711.08141).
"""

from shift_jax.models import (
    create_model,
    list_models,
    list_pretrained,
    load_pretrained,
    model_record,
)
from shift_jax.version import __version__

__all__ = [
    "__version__",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "model_record",
]
