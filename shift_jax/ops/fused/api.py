"""The public `shift_conv`: checks its arguments once and owns its derivative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.ops.fused import xla
from shift_jax.ops.fused.call import BATCH_AXES, KERNELS, call
from shift_jax.ops.fused.spec import Relu, Spec
from shift_jax.ops.offsets import Order, resolve_offsets

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Implementation = Literal["xla", "pallas_tpu", "pallas_gpu"]

_IMPLEMENTATIONS = ("xla", *KERNELS)

# A context of JAX and not a `contextvars` one: it is a part of the key of jit's caches.
_forced = jax.make_user_context(None)


def implementation(name: Implementation | None) -> AbstractContextManager[Any]:
    """A context in which every `shift_conv` traced has this implementation.

        with shift_jax.ops.implementation("xla"):
            jax.jvp(model, (x,), (dx,))

    It goes before the argument of the same name. Contexts nest; None leaves the choice to the
    argument again. What `jax.jit` compiled outside is traced again inside.

    Raises:
      InputError: not an implementation.
    """
    _check_implementation(name)
    return _forced(name)


def batch_axes(*names: str) -> AbstractContextManager[Any]:
    """A context that tells every `shift_conv` which axes of the mesh split the batch.

        with shift_jax.ops.batch_axes("data", "fsdp"):
            loss, gradients = jax.value_and_grad(loss_fn)(params, batch)

    A kernel has to be told how arrays lie on a mesh of several axes, and is not taken by itself
    where it was not. Axes not named hold copies.
    """
    return BATCH_AXES(names)


def chosen_implementation(argument: Implementation | None) -> Implementation | None:
    """Returns what `shift_conv` takes for its argument `implementation` in this context."""
    return _forced.value or argument


def shift_conv(
    x: Float[Array, "*batch h w c"],
    w: Float[Array, "c n"],
    bias: Float[Array, " n"] | None = None,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    stride: int = 1,
    order: Order = "grouped",
    offsets=None,
    expand: Float[Array, "d c"] | None = None,
    scale: Float[Array, " c"] | None = None,
    offset: Float[Array, " c"] | None = None,
    prologue_relu: bool = False,
    residual: Float[Array, "*batch h_out w_out n"] | None = None,
    relu: bool = False,
    relu_before_residual: bool = False,
    statistics: bool = False,
    implementation: Implementation | None = None,
):
    """Shift followed by a pointwise convolution: "directly fetches data from the shifted
    address" (Section 2.1), with what surrounds it in a network.

    In order: the product with `expand`, the prologue `x * scale + offset` and ReLU, the shift with
    zero fill AFTER the prologue (a pixel from outside is 0, not `offset`), the product with `w`,
    and the epilogue `+ bias`, ReLU if `relu_before_residual`, `+ residual`, ReLU if `relu`.
    Products accumulate in float32 or wider.

    With None or a kernel it has gradients of any order and forward derivatives of gradients
    (`jax.hessian`'s other order, `jax.jacfwd(jax.grad(f))`); `jax.jvp` of the function itself is
    refused by JAX and needs "xla".

    On several devices a kernel splits the batch over all of them: the arrays of the jit around it
    need a sharding over a mesh. None takes a kernel only if the mesh has one axis, or if
    `batch_axes` says which of its axes split the batch.

    Args:
      x: [..., H, W, C].
      w: pointwise kernel (C, N).
      bias: (N,).
      kernel_size, dilation, order, offsets: the shift, as in `shift`; `kernel_size=1` is a
        plain pointwise convolution.
      stride: keeps the output's rows and columns 0, s, 2s, …
      expand: pointwise kernel (D, C) of a convolution before all this, of x [..., H, W, D]; what
        it makes need not be written to memory. Its gradients do without this fusion.
      scale: (C,), multiplies x first: with `offset` the preceding BatchNorm.
      offset: (C,), added before the shift.
      prologue_relu: ReLU before the shift.
      residual: [..., ceil(H/s), ceil(W/s), N], added before the last ReLU.
      relu: ReLU at the end.
      relu_before_residual: ReLU before `residual` is added, and none at the end.
      statistics: whether to return sums over the output for the BatchNorm that follows.
      implementation: "xla"; "pallas_tpu" or "pallas_gpu", which run there only; or None for the
        fastest on the device compiled for.

    Returns:
      y [..., ceil(H/s), ceil(W/s), N] in the common dtype of `x` and `w`; with `statistics`
      (y, (sum, sum of squares)), both (N,) over all other axes, in float32 or wider. The kernels
      take them before y is rounded.

    Raises:
      InputError: shapes that do not fit, an invalid shift, stride or implementation; and when it
        is compiled, a kernel that cannot run there.
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    stride = positive_int("stride", stride)
    if x.ndim < 3:
        raise InputError(f"x has shape {x.shape}, expected [..., height, width, channels].")
    *batch, height, width, channels = x.shape
    if expand is not None:
        expand = jnp.asarray(expand)
        if expand.ndim != 2 or expand.shape[0] != channels:
            raise InputError(
                f"expand has shape {expand.shape}, expected ({channels}, channels) for x of shape "
                f"{x.shape}."
            )
        channels = expand.shape[1]
    if w.ndim != 2 or w.shape[0] != channels:
        raise InputError(
            f"w has shape {w.shape}, expected ({channels}, features) for x of shape {x.shape}."
        )
    features = w.shape[1]
    out_shape = (*batch, -(-height // stride), -(-width // stride), features)
    for name, value, expected in (
        ("scale", scale, (channels,)),
        ("offset", offset, (channels,)),
        ("bias", bias, (features,)),
        ("residual", residual, out_shape),
    ):
        if value is not None and jnp.shape(value) != expected:
            raise InputError(f"{name} has shape {jnp.shape(value)}, expected {expected}.")
    if relu and relu_before_residual:
        raise InputError(
            "relu and relu_before_residual are both True: the ReLU is either last or before the "
            "residual is added."
        )
    _check_implementation(implementation)
    relu_place: Relu = "last" if relu else "before_residual" if relu_before_residual else "none"
    if residual is None and relu_place == "before_residual":
        relu_place = "last"
    spec = Spec(
        resolve_offsets(channels, kernel_size, dilation, order, offsets),
        stride,
        prologue_relu,
        relu_place,
        statistics,
    )
    dtype = jnp.result_type(x, w) if expand is None else jnp.result_type(x, expand, w)
    wide = jnp.promote_types(dtype, jnp.float32)
    if residual is not None:
        residual = jnp.asarray(residual, dtype).reshape(math.prod(batch), *out_shape[-3:])
    arrays = (
        x.astype(dtype).reshape(math.prod(batch), *x.shape[-3:]),
        w.astype(dtype),
        *(None if value is None else jnp.asarray(value, wide) for value in (bias, scale, offset)),
        residual,
        None if expand is None else expand.astype(dtype),
    )
    chosen = chosen_implementation(implementation)
    if chosen == "xla":
        y, sums = xla.forward(*arrays, spec=spec)
    else:
        fused = _fused if expand is None else _expanded
        y, sums = fused(spec, chosen, *_varying_alike(arrays))
    y = y.reshape(out_shape)
    return (y, (sums[0], sums[1])) if statistics else y


def _varying_alike(arrays: Sequence[Array | None]) -> list[Array | None]:
    """The arrays, inside `jax.shard_map` all of them varying over the same axes of the mesh.

    Then the gradients vary as the arrays do, which JAX asks of a custom derivative; the transpose
    of the cast sums those of arrays that were replicated.
    """
    varying = {
        i: jax.typeof(array).manual_axis_type.varying
        for i, array in enumerate(arrays)
        if array is not None
    }
    axes = frozenset().union(*varying.values())
    return [
        lax.pcast(array, tuple(axes - varying[i]), to="varying") if i in varying else None
        for i, array in enumerate(arrays)
    ]


def _check_implementation(name: Implementation | None) -> None:
    if name not in (None, *_IMPLEMENTATIONS):
        raise InputError(
            f"implementation is {name!r}, expected None or one of {sorted(_IMPLEMENTATIONS)}."
            f"{did_you_mean(name, _IMPLEMENTATIONS)}"
        )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(spec: Spec, implementation: str | None, *arrays):
    """(y, sums or None) of the arrays of `xla.forward`, of which the last one is None."""
    return call("forward", *arrays, spec=spec, implementation=implementation)


def _fused_forward(spec, implementation, x, w, bias, scale, offset, residual, _):
    inner, residual_inside = spec, residual
    if spec.relu == "before_residual":
        # The ReLU's sign would not survive the rounding of a sum with a larger residual.
        inner, residual_inside = Spec(spec.offsets, spec.stride, spec.prologue_relu, "last"), None
    y, sums = call(
        "forward",
        x,
        w,
        bias,
        scale,
        offset,
        residual_inside,
        None,
        spec=inner,
        implementation=implementation,
    )
    before_residual = y
    if spec.relu == "before_residual":
        wide = y.astype(jnp.promote_types(y.dtype, jnp.float32)) + residual
        y = wide.astype(y.dtype)
        sums = xla.sums_of(y) if spec.statistics else None
    # Scalars say which of bias and residual there are.
    given = [None if array is None else jnp.zeros((), array.dtype) for array in (bias, residual)]
    sign = None if spec.relu == "none" else before_residual
    # Without the barrier XLA keeps the product that y was rounded from, in float32, as well.
    summed = lax.optimization_barrier(y) if spec.statistics else None
    kept = (x, w, scale, offset, given, sign, summed)
    return (y, sums), kept


def _fused_backward(spec, implementation, kept, cotangents):
    x, w, scale, offset, (bias, residual), sign, y = kept
    dy, dsums = cotangents
    # In float32 wherever more than one term meets.
    dy = dy.astype(jnp.promote_types(dy.dtype, jnp.float32))
    if spec.statistics:
        dy = dy + dsums[0] + 2 * y.astype(dy.dtype) * dsums[1]
    dresidual = dy
    if spec.relu != "none":
        dy = jnp.where(sign > 0, dy, 0)
    if spec.relu == "last":
        dresidual = dy
    dbias = None if bias is None else dy.sum(axis=(0, 1, 2)).astype(bias.dtype)
    dresidual = None if residual is None else dresidual.astype(residual.dtype)
    dy = dy.astype(x.dtype)
    inner = Spec(spec.offsets, spec.stride, spec.prologue_relu)
    options = {"spec": inner, "implementation": implementation}
    has_prologue = spec.prologue_relu or scale is not None or offset is not None
    dx, dscale, doffset = call(
        "input_gradient",
        dy,
        w,
        x if has_prologue else None,
        scale,
        offset,
        size=x.shape[1:3],
        **options,
    )
    dw = call("weight_gradient", x, dy, scale, offset, **options)
    if scale is not None:
        dscale = dscale.astype(scale.dtype)
    if offset is not None:
        doffset = doffset.astype(offset.dtype)
    return dx, dw.astype(w.dtype), dbias, dscale, doffset, dresidual, None


_fused.defvjp(_fused_forward, _fused_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _expanded(spec: Spec, implementation: str | None, *arrays):
    """The same, and the last array is not None."""
    return call("forward", *arrays, spec=spec, implementation=implementation)


def _expanded_forward(spec, implementation, *arrays):
    def in_two_steps(x, *others):
        *others, expand = others
        expanded = xla.pointwise(x, expand, x.dtype)
        return _fused(spec, implementation, expanded, *others, None)

    return jax.vjp(in_two_steps, *arrays)


def _expanded_backward(spec, implementation, pull_back, cotangents):
    del spec, implementation
    return pull_back(cotangents)


_expanded.defvjp(_expanded_forward, _expanded_backward)
