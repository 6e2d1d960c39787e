"""BatchNorm that can be folded into the convolutions around it."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


_frozen: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("frozen", default=())


@contextlib.contextmanager
def frozen_norms(beginnings: tuple[str, ...]) -> Iterator[None]:
    """Lets some of the `BatchNorm` modules that are made in the block use running statistics.

    Their averages stay as they are, even in training.

    Args:
      beginnings: of the modules' paths, such as "group1_block1/norm1".
    """
    token = _frozen.set(beginnings)
    try:
        yield
    finally:
        _frozen.reset(token)


class NormFactory(Protocol):
    """Makes the normalization layer that follows a convolution."""

    def __call__(
        self, train: bool, *, dtype: Any = None, param_dtype: Any = jnp.float32, name: str
    ) -> nn.Module: ...


class BatchNorm(nn.BatchNorm):
    """Flax's BatchNorm, which can also return its effect as y·a + b of each channel.

    The convolution before or after it then applies a and b in passing, and nobody writes the
    normalized array. Both ways have the same variables. `frozen_norms` overrides
    `use_running_average`.
    """

    def __post_init__(self):
        super().__post_init__()
        beginnings = _frozen.get()
        if beginnings and self.scope is not None and "/".join(self.path).startswith(beginnings):
            # Its attributes are final now, but its path has become known only here.
            object.__setattr__(self, "use_running_average", True)

    @property
    def folds(self) -> bool:
        """Whether `coefficients` supports all of its attributes."""
        return (
            self.axis == -1
            and self.use_fast_variance
            and self.force_float32_reductions
            and self.axis_index_groups is None
        )

    @nn.compact
    def coefficients(
        self,
        features: int,
        statistics: tuple[Float[Array, " n"], Float[Array, " n"]] | None = None,
        count: int | None = None,
    ) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Returns (a, b), both (N,): a = γ / √(variance + ε) and b = β − mean · a.

        Args:
          features: N.
          statistics: sum and sum of squares (N,) of the batch. They give the mean and the variance
            and update the running averages, as in training; None uses the running averages, and so
            does a frozen norm.
          count: number of elements in each sum.
        """
        mean_average = self.variable("batch_stats", "mean", jnp.zeros, (features,), jnp.float32)
        variance_average = self.variable("batch_stats", "var", jnp.ones, (features,), jnp.float32)
        if statistics is None or self.use_running_average:
            mean, variance = mean_average.value, variance_average.value
        else:
            assert count is not None  # It comes with the sums.
            moments = jnp.stack(statistics) / count
            if self.axis_name is not None and not self.is_initializing():
                moments = lax.pmean(moments, self.axis_name)
            mean = moments[0]
            # Rounding can make the difference negative.
            variance = jnp.maximum(moments[1] - jnp.square(mean), 0)
            if not self.is_initializing():
                old = self.momentum
                mean_average.value = old * mean_average.value + (1 - old) * mean
                variance_average.value = old * variance_average.value + (1 - old) * variance
        scale = lax.rsqrt(variance + self.epsilon)
        if self.use_scale:
            scale = scale * self.param("scale", self.scale_init, (features,), self.param_dtype)
        bias = -mean * scale
        if self.use_bias:
            bias = bias + self.param("bias", self.bias_init, (features,), self.param_dtype)
        return scale, bias


def batch_norm(train: bool, *, epsilon: float = 1e-5, **kwargs) -> BatchNorm:
    """Returns a BatchNorm with the constants of the authors' PyTorch code.

    PyTorch's momentum 0.1 is 0.9 here. Under `jax.jit`, with the batch sharded over devices, the
    statistics are those of the global batch.
    """
    return BatchNorm(use_running_average=not train, momentum=0.9, epsilon=epsilon, **kwargs)
