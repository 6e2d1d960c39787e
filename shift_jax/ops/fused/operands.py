"""The arrays of a fused shift and pointwise convolution, by name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import jax

from shift_jax.ops.fused.spec import Spec

if TYPE_CHECKING:
    from jax import Array


_BATCH, _NO_BATCH = {"has_batch": True}, {"has_batch": False}
_ABSENT: Any = None  # Of arrays that most operations take; each says which it takes.


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Operands:
    """The arrays of one fused call; an array that the call does not take is None.

    Each field's metadata says in `has_batch` whether the array has a batch axis, which several
    devices split; they hold copies of the others.

    Attributes:
      x: [B, H, W, C], or [B, H, W, D] with `expand`.
      w: the pointwise kernel (C, N), in the dtype of `x`.
      bias: (N,), in float32 or wider, as are the next two.
      prologue_scale: (C,), multiplies what the shift reads.
      prologue_bias: (C,), added after the scale.
      residual: [B, ⌈H/s⌉, ⌈W/s⌉, N], in the dtype of `x`.
      expand: the kernel (D, C) of a pointwise convolution before the prologue, in the dtype of `x`.
      dy: [B, ⌈H/s⌉, ⌈W/s⌉, N], in the gradients the cotangent of the product with `w`.
    """

    x: Array = field(default=_ABSENT, metadata=_BATCH)
    w: Array = field(default=_ABSENT, metadata=_NO_BATCH)
    bias: Array | None = field(default=None, metadata=_NO_BATCH)
    prologue_scale: Array | None = field(default=None, metadata=_NO_BATCH)
    prologue_bias: Array | None = field(default=None, metadata=_NO_BATCH)
    residual: Array | None = field(default=None, metadata=_BATCH)
    expand: Array | None = field(default=None, metadata=_NO_BATCH)
    dy: Array = field(default=_ABSENT, metadata=_BATCH)

    def present(self) -> dict[str, Array]:
        """Returns the arrays that are not None, by name."""
        arrays = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: array for name, array in arrays.items() if array is not None}

    def has_prologue(self, spec: Spec) -> bool:
        """Returns whether anything happens between x, or its expansion, and the shift."""
        affine = (self.prologue_scale, self.prologue_bias)
        return spec.prologue_relu or any(vector is not None for vector in affine)


WITH_BATCH = frozenset(each.name for each in fields(Operands) if each.metadata["has_batch"])
"""The names of the operands that have a batch axis."""
