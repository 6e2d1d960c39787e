"""The static half of a fused call: everything but its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from shift_jax.ops.devices import BATCH_AXES
from shift_jax.ops.fused.backends import backend
from shift_jax.ops.fused.operands import WITH_BATCH, Operands
from shift_jax.ops.fused.spec import Operation, Spec

_PROLOGUE = ("prologue_scale", "prologue_bias")


@dataclass(frozen=True)
class FusedCall:
    """The static half of one call.

    Attributes:
      operation: which of a backend's functions.
      spec: the static half of the `shift_conv`.
      names: of the operands that are present, in the order of the primitive's arguments.
      implementation: a key of `KERNELS`, or None for the fastest on the device.
      size: (H, W), for "input_gradient" alone.
      interpret: the value of `INTERPRET`.
      batch_axes: the value of `BATCH_AXES`.
    """

    operation: Operation
    spec: Spec
    names: tuple[str, ...]
    implementation: str | None
    size: tuple[int, int] | None
    interpret: Any
    batch_axes: tuple[str, ...] | None

    def operands(self, leaves) -> Operands:
        """Returns the primitive's arguments by name."""
        return Operands(**dict(zip(self.names, leaves, strict=True)))

    def run(self, name: str, *leaves, **device) -> tuple:
        """Returns the results that are not None of the backend `name`.

        Args:
          name: "xla" or a key of `KERNELS`.
          *leaves: the primitive's arguments.
          **device: what the backend has to know about the device.
        """
        options = {"spec": self.spec, **device}
        if self.size is not None:
            options["size"] = self.size
        if name != "xla" and self.interpret is not None:
            options["interpret"] = self.interpret
        function = getattr(backend(name), self.operation)
        with BATCH_AXES(self.batch_axes):  # A lowering runs outside the caller's context.
            return tuple(jax.tree.leaves(function(self.operands(leaves), **options)))

    def arguments_with_batch(self) -> list[bool]:
        """Returns for each argument of the primitive whether it has a batch axis."""
        return [name in WITH_BATCH for name in self.names]

    def results_with_batch(self) -> list[bool]:
        """Returns for each result whether it has a batch axis; the others are sums over it."""
        if self.operation == "forward":
            return [True, False] if self.spec.statistics else [True]
        if self.operation == "weight_gradient":
            return [False]
        return [True, *(False for name in _PROLOGUE if name in self.names)]

    def by_position(self, results):
        """Returns the primitive's results as the backends' functions return them, with None."""
        if self.operation == "forward":
            return results[0], results[1] if self.spec.statistics else None
        if self.operation == "weight_gradient":
            return results[0]
        dx, *sums = results
        return dx, *(sums.pop(0) if name in self.names else None for name in _PROLOGUE)

    def shapes(self, leaves) -> tuple[tuple[int, ...], str, int]:
        """Returns the shape [B, H, W, C] of the shift's input, its dtype and the features N."""
        operands = self.operands(leaves)
        x, w, dy = operands.x, operands.w, operands.dy
        channels, features = (x.shape[-1], dy.shape[-1]) if w is None else w.shape
        image = x.shape[:3] if self.size is None else (dy.shape[0], *self.size)
        return (*image, channels), leaves[0].dtype.name, features
