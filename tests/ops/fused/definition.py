"""The definition of `shift_conv` and of its gradients in float64, with the errors to expect."""

from math import prod, sqrt

import jax.numpy as jnp
import numpy as np

from tests.ops.fused.cases import Case
from tests.ops.reference import loop_adjoint, loop_shift


def wide(array) -> np.ndarray:
    return np.asarray(jnp.asarray(array, jnp.float32), np.float64)


class Expected:
    """The definition in float64: each result, and the size of its rounding errors.

    A sum of n products of values about 1 is about √n: that many epsilons, with some to spare. Sums
    of what was rounded to the case's type before are as exact as that type.
    """

    def __init__(self, case: Case, sums_of_rounded: bool):
        self.case, self.spec = case, case.spec
        self.given = {key: wide(array) for key, array in case.operands().present().items()}
        # Not only results but all partial sums are rounded to float32, some hundred times.
        self.sum_epsilon = 16 * float(jnp.finfo(jnp.float32).eps)
        self.epsilon = max(float(jnp.finfo(case.dtype).eps), self.sum_epsilon)
        if sums_of_rounded:
            self.sum_epsilon = self.epsilon
        self.pixels = prod(case.out_shape[:3])
        x, scale, bias = map(self.given.get, ("x", "prologue_scale", "prologue_bias"))
        self.before_relu = x if scale is None else x * scale
        if bias is not None:
            self.before_relu = self.before_relu + bias
        # The product's operands are rounded by definition.
        a = wide(jnp.asarray(self.before_relu, case.dtype))
        a = np.maximum(a, 0) if self.spec.prologue_relu else a
        stride = case.stride
        self.shifted = loop_shift(a, case.offsets)[:, ::stride, ::stride]

    def forward(self):
        bias, residual = self.given.get("bias"), self.given.get("residual")
        y = self.shifted @ self.given["w"]
        y = y if bias is None else y + bias
        y = np.maximum(y, 0) if self.spec.relu == "before_residual" else y
        y = y if residual is None else y + residual
        y = np.maximum(y, 0) if self.spec.relu == "last" else y
        channels = self.case.shape[-1]
        yield y, self.case.dtype, self.epsilon * sqrt(channels)
        if self.spec.statistics:
            sums = np.stack([y.sum((0, 1, 2)), (y * y).sum((0, 1, 2))])
            # A square is about C.
            yield sums, "float32", self.sum_epsilon * channels * sqrt(self.pixels)
        else:
            yield None, None, None

    def input_gradient(self):
        height, width = self.case.shape[1:3]
        spread = np.zeros(self.case.shape)
        stride = self.case.stride
        spread[:, ::stride, ::stride] = self.given["dy"] @ self.given["w"].T
        assert spread.shape[1:3] == (height, width)
        g = loop_adjoint(spread, self.case.offsets)
        g = g * (self.before_relu > 0) if self.spec.prologue_relu else g
        scale, bias = map(self.given.get, ("prologue_scale", "prologue_bias"))
        size = self.epsilon * sqrt(self.case.features)
        yield (g if scale is None else g * scale), self.case.dtype, size
        for vector, terms in ((scale, g * self.given["x"]), (bias, g)):
            if vector is None:
                yield None, None, None
            else:
                yield terms.sum((0, 1, 2)), "float32", size * sqrt(self.pixels)

    def weight_gradient(self):
        dw = np.einsum("bhwc,bhwn->cn", self.shifted, self.given["dy"])
        yield dw, "float32", self.sum_epsilon * sqrt(self.pixels)


def assert_is(actual, expected) -> None:
    """Each result has its type, its shape and its values."""
    for array, (value, dtype, size) in zip(actual, expected, strict=True):
        assert (array is None) == (value is None)
        if value is not None:
            assert array.dtype == dtype
            assert array.shape == value.shape
            rtol = 2 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(wide(array), value, rtol=rtol, atol=4 * size)
