"""Which backend is the fastest, by device and shape: the rows of `choices.json`."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

from shift_jax.ops.fused.spec import Operation, Spec


def choose(
    device_kind: str,
    operation: Operation,
    x_shape: tuple[int, ...],
    dtype: str,
    features: int,
    spec: Spec,
) -> str:
    """Returns the implementation of the first row that fits, else "xla".

    A row names a device kind, as JAX does, an operation, a dtype and an implementation. It may
    bound the shape by "batch_multiple", and by "min_" and "max_" of "batch", "height", "width",
    "channels", "features" and "stride".

    Args:
      device_kind: as in `jax.Device.device_kind`.
      operation: which of a backend's functions.
      x_shape: (B, H, W, C) on one device.
      dtype: of x, such as "bfloat16".
      features: N.
      spec: the static half of the `shift_conv`.
    """
    moves = any(dy or dx for dy, dx in spec.offsets)
    if not moves and spec.stride == 1:
        return "xla"  # A plain matrix product, which no kernel improves.
    sizes = dict(zip(("batch", "height", "width", "channels"), x_shape, strict=True))
    sizes |= {"features": features, "stride": spec.stride}
    names = (device_kind, operation, dtype)
    for row in _rows():
        if (row["device_kind"], row["operation"], row["dtype"]) == names and _fits(row, sizes):
            return row["implementation"]
    return "xla"


def _fits(row: dict, sizes: dict[str, int]) -> bool:
    return sizes["batch"] % row.get("batch_multiple", 1) == 0 and all(
        row.get(f"min_{name}", size) <= size <= row.get(f"max_{name}", size)
        for name, size in sizes.items()
    )


@cache
def _rows() -> list[dict]:
    return json.loads(resources.files("shift_jax.ops.fused").joinpath("choices.json").read_text())
