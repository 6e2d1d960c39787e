"""Shifts whose offsets are parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from shift_jax import ops
from shift_jax.errors import check_choice

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

OffsetsInit = Literal["uniform", "grid"]
ShiftKind = Literal["fixed", "active", "sparse"]


def check_offsets_init(name: OffsetsInit) -> OffsetsInit:
    """Returns the name, or raises InputError for an unknown one."""
    check_choice("offsets_init", name, ("uniform", "grid"))
    return name


class ActiveShift(nn.Module):
    """A shift by real offsets that are learned (Jeon & Kim 2018, arXiv:1806.07370).

    It takes [..., H, W, C] and returns [..., ⌈H/s⌉, ⌈W/s⌉, C]. Its parameter "offsets" (C, 2) is
    float32.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from shift_jax import ActiveShift
        >>> layer = ActiveShift(stride=2)
        >>> x = jnp.ones((1, 8, 8, 18))
        >>> y, variables = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape, variables["params"]["offsets"].shape
        ((1, 4, 4, 18), (18, 2))

    Attributes:
      stride: s, see `shift_jax.active_shift`.
      offsets_init: "uniform" within ±1 pixel (Active Shift), or "grid", those of
        `shift_jax.shift_offsets` with the three attributes below (Sparse Shift).
      kernel_size, dilation, order: of the grid.

    Raises:
      InputError: as `shift_jax.active_shift`, or attributes that are not valid.
    """

    stride: int = 1
    offsets_init: OffsetsInit = "uniform"
    kernel_size: int = 3
    dilation: int = 1
    order: ops.Order = "grouped"

    # `shift_jax.active_shift`, or what has its arguments.
    operation = staticmethod(ops.active_shift)

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h_out w_out c"]:
        check_offsets_init(self.offsets_init)
        offsets = self.param("offsets", self._initial, x.shape[-1])
        return self.operation(x, offsets, self.stride)

    def _initial(self, key: Array, channels: int) -> Float[Array, "c 2"]:
        if self.offsets_init == "uniform":
            return jax.random.uniform(key, (channels, 2), jnp.float32, -1, 1)
        grid = ops.shift_offsets(channels, self.kernel_size, self.dilation, self.order)
        return jnp.asarray(grid, jnp.float32)


class SparseShift(ActiveShift):
    """A shift by learned offsets that are rounded (Chen et al. 2019, arXiv:1903.05285).

    All attributes are those of `ActiveShift`; `shift_jax.sparse_shift` says how it learns.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from shift_jax import SparseShift
        >>> layer = SparseShift(offsets_init="grid")
        >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 9)))
        >>> variables["params"]["offsets"][:3].tolist()
        [[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0]]
    """

    operation = staticmethod(ops.sparse_shift)


LEARNED = {"active": ActiveShift, "sparse": SparseShift}


def check_shift(shift: ShiftKind) -> ShiftKind:
    """Returns the kind of shift, or raises InputError for an unknown one."""
    check_choice("shift", shift, ("fixed", *LEARNED))
    return shift
