"""Reads the convolutions of VGG-16 and VGG-19, which perceptual losses use as features."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shift_jax.errors import InputError, check_choice
from shift_jax.models.vgg import CONVOLUTIONS, WIDTHS, keras_layout, torch_layout
from shift_jax.weights import convert
from shift_jax.weights.formats import format_of
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import read_safetensors
from shift_jax.weights.torch.file import read_torch

# Mean and deviation of RGB pixels in torchvision's transforms: for IMAGENET1K_V1, and for
# IMAGENET1K_FEATURES, which are Caffe's weights with their channels reversed already.
_TORCHVISION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TORCHVISION_FEATURES = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
_TORCHVISION_FILES = {16: "vgg16-397923af.pth", 19: "vgg19-dcbb9e9d.pth"}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VggFeatures:
    """The first convolutions of a VGG and the normalization of their input; a pytree.

    The input of the first convolution is (pixels − mean) / std, for RGB pixels in 0..255.

    Attributes:
      kernels: float32 kernel [3, 3, in, out] and bias [out] by the names `block1_conv1` and so on.
      mean, std: of the channels R, G and B, for pixels in 0..255; float32 [3].
      depth: 16 or 19.
    """

    kernels: dict[str, tuple[Any, Any]]
    mean: Any
    std: Any
    depth: int = field(metadata={"static": True})

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be computed, from `relu1_1` on."""
        return tuple(_layer(name) for name in sorted(self.kernels))


def vgg_layers(depth: int) -> tuple[str, ...]:
    """Returns the names of VGG's convolutions with their ReLU, `relu1_1` … `relu5_3` or `relu5_4`.

    The names are those of Johnson et al., ECCV 2016. Depths 16 and 19 are configurations D and E of
    Simonyan and Zisserman 2015, Table 1.

    Raises:
      InputError: a depth other than 16 or 19.
    """
    check_choice("The depth of VGG", depth, tuple(CONVOLUTIONS))
    return tuple(
        f"relu{block}_{index}"
        for block, count in enumerate(CONVOLUTIONS[depth], start=1)
        for index in range(1, count + 1)
    )


def read_vgg_features(path: str | os.PathLike, depth: int, layers: Iterable[str]) -> VggFeatures:
    """Reads the convolutions that `layers` need from a file of VGG's weights.

    Weights of each origin read different pixels. torchvision's read RGB pixels normalized by
    ImageNet's mean and deviation; its IMAGENET1K_FEATURES, recognized by a classifier of NaNs, only
    subtract a mean. Keras's read BGR pixels minus a mean, so the inputs of their first kernel are
    reversed here. Files of this package have the normalization in their config.

    Args:
      path: a file of torchvision or Keras (`.h5`, or `.npz` with its names), with or without the
        classifier, or a `.safetensors` of `shift-jax export`. Convolutions after the deepest of
        `layers` may be missing.
      depth: 16 or 19.
      layers: names from `vgg_layers(depth)`, in any order.

    Returns:
      The convolutions up to the deepest layer, as numpy arrays.

    Raises:
      InputError: an unknown depth or layer; a file that does not exist, cannot be read, is of
        another network or depth, or ends before the deepest layer.
    """
    known = vgg_layers(depth)
    layers = tuple(layers)
    if not layers:
        raise InputError(
            f"No layers of VGG-{depth} are given: name at least one of {', '.join(known)}."
        )
    for layer in layers:
        check_choice(f"A layer of VGG-{depth}", layer, known)
    if not Path(path).is_file():
        raise InputError(_how_to_get(path, depth))
    path = Path(path)
    content = _read(path)
    deepest = max(layers, key=known.index)
    _check_network(path, content, depth, deepest)
    variables = _variables(path, content, depth, known.index(deepest) + 1)
    return VggFeatures(
        {name: (conv["conv"]["kernel"], conv["conv"]["bias"]) for name, conv in variables.items()},
        255 * np.asarray(content.mean, np.float32),
        255 * np.asarray(content.std, np.float32),
        depth,
    )


@dataclass(frozen=True)
class _Content:
    """What a file holds.

    Attributes:
      tensors: by the names that their origin uses.
      layout: returns the layout of the tensors for a depth.
      pattern: matches the names of all tensors before the classifier.
      mean, std: of RGB pixels in 0..1.
    """

    tensors: Mapping[str, np.ndarray]
    layout: Callable[[int], convert.TensorLayout]
    pattern: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def names(self, depth: int) -> list[str]:
        """The kernel and the bias of each convolution, in order."""
        layout = self.layout(depth)
        return [
            layout.tensor(f"{_convolution(layer)}/conv", leaf)[0]
            for layer in vgg_layers(depth)
            for leaf in ("kernel", "bias")
        ]


def _read(path: Path) -> _Content:
    kind = format_of(path)
    if kind == "keras":
        layout = keras_layout()
        assert layout.mean and layout.std
        return _Content(read_keras(path), lambda _: layout, r"block\d+_.*", layout.mean, layout.std)
    if kind == "caffe":
        raise InputError(
            f"{path} is a file of Caffe, but VGG is read from torchvision and Keras only."
        )
    if kind == "torch":
        return _torch(read_torch(path).tensors)
    variables, metadata = read_safetensors(path)
    tensors = convert.flat(variables)
    if not any(name.startswith("params/") for name in tensors):
        return _torch(tensors)
    layout = convert.our_layout()
    pattern = r"[^/]+/(?!hidden|classifier).*"
    return _Content(tensors, lambda _: layout, pattern, *_normalization(path, metadata))


def _torch(tensors: Mapping[str, np.ndarray]) -> _Content:
    # The first convolution of both depths.
    tensors = convert.without_shared_prefixes(tensors, ["features.0.weight"])
    bias = tensors.get("classifier.0.bias")
    is_features_only = bias is not None and np.isnan(bias).all()
    return _Content(
        tensors,
        lambda depth: torch_layout(depth, {}).tensor_layout(),
        r"features\..*",
        *(_TORCHVISION_FEATURES if is_features_only else _TORCHVISION),
    )


def _normalization(path: Path, metadata: Mapping[str, str]) -> tuple[tuple, tuple]:
    try:
        data = json.loads(metadata["config"])["data"]
        mean, std = (tuple(map(float, data[name])) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not say how to normalize RGB pixels, expected a file that shift-jax "
            "export wrote: use such a file, or weights of torchvision or Keras."
        ) from error
    return mean, std


def _check_network(path: Path, content: _Content, depth: int, deepest: str) -> None:
    """Raises `InputError` unless the file is of this VGG and reaches the layer."""
    present = {name for name in content.tensors if re.fullmatch(content.pattern, name)}

    def is_start_of(other: int) -> bool:
        is_even = len(present) % 2 == 0  # Every kernel has its bias.
        return bool(present) and is_even and present == set(content.names(other)[: len(present)])

    if not is_start_of(depth):
        for other in CONVOLUTIONS:
            if is_start_of(other):
                raise InputError(
                    f"{path} is of VGG-{other}, expected VGG-{depth}: choose the depth {other}, or "
                    f"a file of VGG-{depth}."
                )
        names = present or list(content.tensors)
        other = min((name for name in names if name not in content.names(depth)), default="")
        what = f"it has {other[:100]!r}" if other else "some of its convolutions are missing"
        raise InputError(
            f"{path} is not of VGG-{depth} without BatchNorm ({what}): use a file of VGG-{depth} "
            "from torchvision or Keras."
        )
    last = vgg_layers(depth)[len(present) // 2 - 1]
    if deepest not in vgg_layers(depth)[: len(present) // 2]:
        raise InputError(
            f"{path} ends with {_convolution(last)} of VGG-{depth}, before the layer {deepest}: "
            f"choose layers up to {last}, or a file of the whole network."
        )


def _variables(path: Path, content: _Content, depth: int, count: int) -> dict[str, Any]:
    """Returns the first `count` convolutions, after a check of their shapes."""
    layout, shapes, used = content.layout(depth), {}, {}
    channels = 3
    for layer in vgg_layers(depth)[:count]:
        name, width = _convolution(layer), WIDTHS[int(layer[4]) - 1]
        leaves = {"kernel": (3, 3, channels, width), "bias": (width,)}
        for leaf, shape in leaves.items():
            key, reorder = layout.tensor(f"{name}/conv", leaf)
            used[key] = array = content.tensors[key]
            if array.ndim != len(shape) or reorder(array).shape != shape:
                raise InputError(
                    f"{path} is not of VGG-{depth} ({key!r} has shape {array.shape}, which is "
                    f"not a {leaf} of {width} filters on {channels} channels): use a file of "
                    f"VGG-{depth} from torchvision or Keras."
                )
        shapes[name] = {"conv": {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in leaves.items()}}
        channels = width
    try:
        return convert.to_variables(used, {"params": shapes}, layout)["params"]
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def _how_to_get(path: str | os.PathLike, depth: int) -> str:
    name = f"vgg{depth}"
    return (
        f"There is no file {str(path)!r} with the weights of VGG-{depth}, which the perceptual "
        f"loss needs: download torchvision's https://download.pytorch.org/models/"
        f"{_TORCHVISION_FILES[depth]} (torchvision.models.{name}(weights='DEFAULT') fetches the "
        "same) or Keras's https://storage.googleapis.com/tensorflow/keras-applications/"
        f"{name}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5, and set style.vgg_weights to "
        "where it is."
    )


def _convolution(layer: str) -> str:
    return layer.replace("relu", "block").replace("_", "_conv")


def _layer(convolution: str) -> str:
    return convolution.replace("block", "relu").replace("_conv", "_")
