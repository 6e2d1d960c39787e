"""Reads the convolutions of VGG-16 and VGG-19, whose features perceptual losses compare."""

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
from flax.traverse_util import flatten_dict

from shift_jax.errors import InputError, check_choice
from shift_jax.models.vgg import CONVOLUTIONS, WIDTHS, keras_source, torch_layout
from shift_jax.weights import convert
from shift_jax.weights.formats import format_of
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import read_safetensors
from shift_jax.weights.torch.file import read_torch

# RGB, as torchvision's transforms have them: of IMAGENET1K_V1, and of IMAGENET1K_FEATURES, which
# are the weights of Caffe with their channels already reversed.
_TORCHVISION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_TORCHVISION_FEATURES = ((0.48235, 0.45882, 0.40784), (1 / 255,) * 3)
_TORCHVISION_FILES = {16: "vgg16-397923af.pth", 19: "vgg19-dcbb9e9d.pth"}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VggFeatures:
    """The first convolutions of a VGG, and how their input is normalised; a pytree.

    The input of the first convolution is (pixels - mean) / std, of RGB pixels in 0..255.

    Attributes:
      kernels: by names `block1_conv1` …, the kernel, float32 [3, 3, in, out], and bias [out].
      mean: of each channel, R, G, B, in pixel values; float32 [3].
      std: what the difference is divided by; float32 [3].
      depth: 16 or 19.
    """

    kernels: dict[str, tuple[Any, Any]]
    mean: Any
    std: Any
    depth: int = field(metadata={"static": True})

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that can be computed, `relu1_1` …, in their order."""
        return tuple(_layer(name) for name in sorted(self.kernels))


def vgg_layers(depth: int) -> tuple[str, ...]:
    """Returns the names of VGG's convolutions with their ReLU, `relu1_1` … `relu5_3` or `relu5_4`.

    The names are those of Johnson et al., ECCV 2016; the depths, configurations D and E of Simonyan
    and Zisserman 2015, Table 1.

    Raises:
      InputError: another depth than 16 or 19.
    """
    check_choice("The depth of VGG", depth, tuple(CONVOLUTIONS))
    return tuple(
        f"relu{block}_{index}"
        for block, count in enumerate(CONVOLUTIONS[depth], start=1)
        for index in range(1, count + 1)
    )


def read_vgg_features(path: str | os.PathLike, depth: int, layers: Iterable[str]) -> VggFeatures:
    """Reads the convolutions that `layers` need from a file of VGG's weights.

    Each origin has its own pixels: torchvision's weights read RGB with ImageNet's mean and
    deviation (but its IMAGENET1K_FEATURES, known by a classifier of NaNs, only less a mean); Keras'
    read BGR less `KERAS_VGG_MEAN`, and their first kernel's inputs are reversed here; our own
    files' config says it.

    Args:
      path: torchvision's `.pth`, Keras' `.h5` or an `.npz` with its names, with or without the
        classifier, or a `.safetensors` of `export_safetensors`. Convolutions after the deepest of
        `layers` may be missing.
      depth: 16 or 19.
      layers: names out of `vgg_layers(depth)`, in any order.

    Returns:
      The convolutions up to the deepest layer, as numpy arrays.

    Raises:
      InputError: an unknown depth or layer; no such file, a file that cannot be read, of another
        network or the other depth, or that ends before the deepest layer.
    """
    known = vgg_layers(depth)
    layers = tuple(layers)
    if not layers:
        raise InputError(
            f"No layers of VGG-{depth} were asked for: name at least one of {', '.join(known)}."
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
        *(255 * np.asarray(values, np.float32) for values in (content.mean, content.std)),
        depth,
    )


@dataclass(frozen=True)
class _Content:
    """What a file holds.

    Attributes:
      tensors: by the names of their origin.
      source: their origin, for a depth.
      pattern: matches the names of all tensors in front of the classifier.
      mean, std: of RGB pixels in 0..1.
    """

    tensors: Mapping[str, np.ndarray]
    source: Callable[[int], convert.Source]
    pattern: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def names(self, depth: int) -> list[str]:
        """The kernel and the bias of each convolution, in order."""
        source = self.source(depth)
        return [
            source.tensor(f"{_convolution(layer)}/conv", leaf)[0]
            for layer in vgg_layers(depth)
            for leaf in ("kernel", "bias")
        ]


def _read(path: Path) -> _Content:
    kind = format_of(path)
    if kind == "keras":
        source = keras_source()
        return _Content(read_keras(path), lambda _: source, r"block\d+_.*", source.mean, source.std)
    if kind == "torch":
        return _torch(read_torch(path).tensors)
    variables, metadata = read_safetensors(path)
    tensors = flatten_dict(variables, sep="/")
    if not any(name.startswith("params/") for name in tensors):
        return _torch(tensors)
    source = convert.our_source()
    pattern = r"[^/]+/(?!hidden|classifier).*"
    return _Content(tensors, lambda _: source, pattern, *_normalisation(path, metadata))


def _torch(tensors: Mapping[str, np.ndarray]) -> _Content:
    # The first convolution of both depths.
    tensors = convert.without_shared_prefixes(tensors, ["features.0.weight"])
    bias = tensors.get("classifier.0.bias")
    is_features_only = bias is not None and np.isnan(bias).all()
    return _Content(
        tensors,
        lambda depth: torch_layout(depth, {}).source(),
        r"features\..*",
        *(_TORCHVISION_FEATURES if is_features_only else _TORCHVISION),
    )


def _normalisation(path: Path, metadata: Mapping[str, str]) -> tuple[tuple, tuple]:
    try:
        data = json.loads(metadata["config"])["data"]
        mean, std = (tuple(map(float, data[name])) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} does not say how the pixels of RGB images are normalised, expected a file of "
            "shift-jax export: take that, or torchvision's or Keras' weights."
        ) from error
    return mean, std


def _check_network(path: Path, content: _Content, depth: int, deepest: str) -> None:
    """Raises `InputError` unless the file is of this VGG and reaches the layer."""
    present = {name for name in content.tensors if re.fullmatch(content.pattern, name)}

    def is_start_of(other: int) -> bool:
        is_even = len(present) % 2 == 0  # No kernel without its bias.
        return bool(present) and is_even and present == set(content.names(other)[: len(present)])

    if not is_start_of(depth):
        for other in CONVOLUTIONS:
            if is_start_of(other):
                raise InputError(
                    f"{path} is of VGG-{other}, but VGG-{depth} is to be read: choose the depth "
                    f"{other}, or a file of VGG-{depth}."
                )
        names = present or list(content.tensors)
        other = min((name for name in names if name not in content.names(depth)), default="")
        what = f"it has {other[:100]!r}" if other else "some of its convolutions are missing"
        raise InputError(
            f"{path} is of another network than VGG-{depth} without BatchNorm ({what}): name a "
            f"file of VGG-{depth}'s weights from torchvision or Keras."
        )
    last = vgg_layers(depth)[len(present) // 2 - 1]
    if deepest not in vgg_layers(depth)[: len(present) // 2]:
        raise InputError(
            f"{path} ends with {_convolution(last)} of VGG-{depth}, but {deepest} was asked for: "
            f"choose layers up to {last}, or a file of the whole network."
        )


def _variables(path: Path, content: _Content, depth: int, count: int) -> dict[str, Any]:
    """Returns the first `count` convolutions, after a look at their shapes."""
    source, shapes, used = content.source(depth), {}, {}
    channels = 3
    for layer in vgg_layers(depth)[:count]:
        name, width = _convolution(layer), WIDTHS[int(layer[4]) - 1]
        leaves = {"kernel": (3, 3, channels, width), "bias": (width,)}
        for leaf, shape in leaves.items():
            key, reorder = source.tensor(f"{name}/conv", leaf)
            used[key] = array = content.tensors[key]
            if array.ndim != len(shape) or reorder(array).shape != shape:
                raise InputError(
                    f"{path} is of another network than VGG-{depth} ({key!r} has shape "
                    f"{array.shape}, not the {leaf} of {width} filters on {channels} channels): "
                    f"name a file of VGG-{depth}'s weights from torchvision or Keras."
                )
        shapes[name] = {"conv": {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in leaves.items()}}
        channels = width
    try:
        return convert.to_variables(used, {"params": shapes}, source)["params"]
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error


def _how_to_get(path: str | os.PathLike, depth: int) -> str:
    name = f"vgg{depth}"
    return (
        f"There is no file {str(path)!r} with the weights of VGG-{depth}, which the perceptual "
        f"loss needs: download torchvision's https://download.pytorch.org/models/"
        f"{_TORCHVISION_FILES[depth]} (torchvision.models.{name}(weights='DEFAULT') fetches the "
        "same) or Keras' https://storage.googleapis.com/tensorflow/keras-applications/"
        f"{name}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5, and set style.vgg_weights to "
        "where it is."
    )


def _convolution(layer: str) -> str:
    return layer.replace("relu", "block").replace("_", "_conv")


def _layer(convolution: str) -> str:
    return convolution.replace("block", "relu").replace("_conv", "_")
