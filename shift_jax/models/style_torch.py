"""PyTorch layout of the style transformers: the authors' code, based on fast_neural_style."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shift_jax.weights.torch.layout import TorchLayout, path_parts

_NORMS = {"down1": 1, "down2": 2, "down3": 3, "up1": 4, "up2": 5}
_NAMES = {"down": "conv", "up": "deconv"}
# InstanceNorms of old PyTorch versions saved running statistics that nothing reads.
_IGNORED = r".*\.num_batches_tracked|(.*\.)?in\d\.running_(mean|var)"


def style_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of the original image transformer."""
    return _layout(shifts=())


def shift_style_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of the image transformer with shifts."""
    keeps_up2 = arguments.get("variant", "released") == "released"
    return _layout(shifts=("down2", "down3", "up1", *(() if keeps_up2 else ("up2",))))


def _layout(shifts: tuple[str, ...]) -> TorchLayout:
    """The layout, given the layers outside the residual blocks that are shifts."""

    def name(path: str) -> str:
        layer = path.removesuffix("/conv").removesuffix("_norm")
        residual = re.fullmatch(r"residual(\d)_conv(\d)", layer)
        if path.endswith("_norm"):
            return "res{}.in{}".format(*residual.groups()) if residual else f"in{_NORMS[layer]}"
        if residual:
            return "res{}.conv{}.".format(*residual.groups()) + ("conv" if shifts else "conv2d")
        kind, number = path_parts(r"(down|up)(\d)", layer)
        if layer not in shifts:
            return f"{_NAMES[kind]}{number}.conv2d"
        return f"{_NAMES[kind]}{number}." + ("conv" if kind == "down" else "conv2d.conv")

    return TorchLayout("the authors' style transfer code", name, ignored=_IGNORED)
