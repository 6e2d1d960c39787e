"""The public `shift_conv`, which checks its arguments once, and the contexts around it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.ops.devices import BATCH_AXES
from shift_jax.ops.fused import xla
from shift_jax.ops.fused.backends import KERNELS, Implementation
from shift_jax.ops.fused.derivative import differentiable
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Relu, Spec
from shift_jax.ops.offsets import Order, resolve_offsets

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float
    from numpy.typing import ArrayLike

_IMPLEMENTATIONS = ("xla", *KERNELS)

# A context of JAX, not of `contextvars`: its value is part of the key of jit's caches.
_forced = jax.make_user_context(None)


def implementation(name: Implementation | None) -> AbstractContextManager[Any]:
    """Forces one implementation on every `shift_conv` traced in this context.

        with shift_jax.ops.implementation("xla"):
            jax.jvp(model, (x,), (dx,))

    The context overrides the argument of the same name. Contexts nest; None leaves the choice to
    the argument again. `jax.jit` traces a function again inside that it compiled outside.

    Args:
      name: "xla", "pallas_tpu", "pallas_gpu" or None.

    Raises:
      InputError: the name is none of these.
    """
    _check_implementation(name)
    return _forced(name)


def batch_axes(*names: str) -> AbstractContextManager[Any]:
    """Tells every `shift_conv` in this context which mesh axes split the batch.

        with shift_jax.ops.batch_axes("data", "fsdp"):
            loss, gradients = jax.value_and_grad(loss_fn)(params, batch)

    On a mesh of several axes a kernel cannot find this out, so without the context only
    `implementation=NAME` takes one there. The axes not named hold copies.

    Args:
      *names: axes of the mesh.
    """
    return BATCH_AXES(names)


def chosen_implementation(argument: Implementation | None) -> Implementation | None:
    """Returns what `shift_conv` does with its argument `implementation` in this context."""
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
    offsets: ArrayLike | None = None,
    expand: Float[Array, "d c"] | None = None,
    prologue_scale: Float[Array, " c"] | None = None,
    prologue_bias: Float[Array, " c"] | None = None,
    prologue_relu: bool = False,
    residual: Float[Array, "*batch h_out w_out n"] | None = None,
    relu: bool = False,
    relu_before_residual: bool = False,
    statistics: bool = False,
    implementation: Implementation | None = None,
):
    """Shifts `x` and applies a pointwise convolution, with the operations around both.

    A fused kernel "directly fetches data from the shifted address" (Section 2.1). In order:

    1. the product with `expand`, if given;
    2. the prologue `x * prologue_scale + prologue_bias`, then ReLU if `prologue_relu`;
    3. the shift, which fills with zeros AFTER the prologue: a pixel from outside the image is 0,
       not `prologue_bias`;
    4. the product with `w` at every `stride`-th row and column;
    5. the epilogue: `+ bias`, ReLU if `relu_before_residual`, `+ residual`, ReLU if `relu`.

    Products accumulate in float32 or wider.

    Derivatives: with None or a kernel, gradients of any order and forward derivatives of gradients
    (`jax.jacfwd(jax.grad(f))`). JAX refuses `jax.jvp` of the function itself unless the
    implementation is "xla".

    Several devices: a kernel splits the batch over them if the arguments of the surrounding jit
    are sharded over a mesh. None takes a kernel only if the mesh has one axis, or if `batch_axes`
    names the axes that split the batch.

        >>> import jax.numpy as jnp
        >>> from shift_jax import shift_conv
        >>> x, w = jnp.ones((2, 8, 8, 18)), jnp.ones((18, 5))
        >>> shift_conv(x, w, stride=2, relu=True).shape
        (2, 4, 4, 5)

    Args:
      x: [..., H, W, C].
      w: the pointwise kernel (C, N).
      bias: (N,).
      kernel_size, dilation, order, offsets: the shift, as in `shift`. `kernel_size=1` is a plain
        pointwise convolution.
      stride: s; the output keeps rows and columns 0, s, 2s, …
      expand: the kernel (D, C) of a pointwise convolution of x [..., H, W, D] before everything
        else. A kernel keeps its result on the chip; gradients do without that.
      prologue_scale: (C,); with `prologue_bias` a preceding BatchNorm.
      prologue_bias: (C,).
      prologue_relu: whether a ReLU precedes the shift.
      residual: [..., ceil(H/s), ceil(W/s), N].
      relu: whether a ReLU ends the epilogue.
      relu_before_residual: whether a ReLU precedes the addition of `residual`; then none follows.
      statistics: whether to return sums over the output for a BatchNorm that follows.
      implementation: "xla"; "pallas_tpu" or "pallas_gpu", which only those devices run; or None
        for the fastest on the device that the computation is compiled for.

    Returns:
      y [..., ceil(H/s), ceil(W/s), N] in the common dtype of `x`, `expand` and `w`; with
      `statistics` (y, (sum, sum of squares)), both (N,) over all other axes and in float32 or
      wider. Kernels sum before they round y.

    Raises:
      InputError: shapes that do not fit, an invalid shift, stride or implementation; during
        compilation, a kernel by name that cannot run there.
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
    # ⌈H/s⌉ as JAX computes it for convolutions and poolings: symbolic sizes then compare equal.
    out_shape = (*batch, *((n - 1) // stride + 1 for n in (height, width)), features)
    for name, value, expected in (
        ("prologue_scale", prologue_scale, (channels,)),
        ("prologue_bias", prologue_bias, (channels,)),
        ("bias", bias, (features,)),
        ("residual", residual, out_shape),
    ):
        if value is not None and jnp.shape(value) != expected:
            raise InputError(f"{name} has shape {jnp.shape(value)}, expected {expected}.")
    if relu and relu_before_residual:
        raise InputError(
            "relu and relu_before_residual are both True: choose one place for the epilogue's ReLU."
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

    def vector(value):
        return None if value is None else jnp.asarray(value, wide)

    if residual is not None:
        residual = jnp.asarray(residual, dtype).reshape(math.prod(batch), *out_shape[-3:])
    operands = Operands(
        x=x.astype(dtype).reshape(math.prod(batch), *x.shape[-3:]),
        w=w.astype(dtype),
        bias=vector(bias),
        prologue_scale=vector(prologue_scale),
        prologue_bias=vector(prologue_bias),
        residual=residual,
        expand=None if expand is None else expand.astype(dtype),
    )
    chosen = chosen_implementation(implementation)
    if chosen == "xla":
        y, sums = xla.forward(operands, spec=spec)
    else:
        y, sums = differentiable(spec, chosen, operands)
    y = y.reshape(out_shape)
    return y if sums is None else (y, (sums[0], sums[1]))


def _check_implementation(name: Implementation | None) -> None:
    if name not in (None, *_IMPLEMENTATIONS):
        raise InputError(
            f"implementation is {name!r}, expected None or one of {sorted(_IMPLEMENTATIONS)}."
            f"{did_you_mean(name, _IMPLEMENTATIONS)}"
        )
