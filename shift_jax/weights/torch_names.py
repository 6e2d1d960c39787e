"""Under what names the weights of the zoo's networks are in PyTorch files.

A layout turns the path of one of our modules, such as `group1_block1/norm1`, into the name that
the PyTorch module has, such as `layer1.0.bn1`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from shift_jax.errors import InputError

_BLOCK = re.compile(r"group(\d+)_block(\d+)/(.+)")
_RESIDUAL = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3"}


@dataclass(frozen=True)
class Layout:
    """How one PyTorch implementation names the layers of a network.

    Attributes:
      source: whose implementation it is.
      name: from our module path to PyTorch's module name.
      flattened: linear layers that read a flattened map, by PyTorch's name: its (C, H, W).
      ignored: matches names of tensors that are of no use here.
    """

    source: str
    name: Callable[[str], str]
    flattened: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    ignored: str = r".*\.num_batches_tracked"


def layout_of(model: str, arguments: dict) -> Layout:
    """Returns the layout for a registered network.

    Args:
      model: its name.
      arguments: what it is created with.

    Raises:
      InputError: no PyTorch implementation of that network is known.
    """
    for pattern, make in _LAYOUTS:
        if re.fullmatch(pattern, model):
            return make(model, arguments)
    raise InputError(
        f"No PyTorch layout is known for model {model!r}, only for the CIFAR networks, resnet50, "
        "vgg16, vgg19, squeezenet, facenet, style_transformer and shift_style_transformer."
    )


def _cifar(model: str, _) -> Layout:
    """The authors' repository, which follows Kuang Liu's pytorch-cifar."""
    inside = {**_RESIDUAL, "conv_shortcut": "shortcut.0", "norm_shortcut": "shortcut.1"}
    if model.startswith("depthwise"):
        inside |= {"depthwise": "depth", "depthwise_norm": "bn2", "conv2": "conv3", "norm2": "bn3"}
    outside = {"stem": "conv1", "stem_norm": "bn1", "classifier": "linear"}
    name = _residual_name(outside, inside)
    return Layout("the authors' CIFAR code", name)


def _resnet50(*_) -> Layout:
    outside = {"stem/conv": "conv1", "stem/norm": "bn1", "classifier": "fc"}
    inside = {**_RESIDUAL, "conv_shortcut": "downsample.0", "norm_shortcut": "downsample.1"}
    return Layout("torchvision", _residual_name(outside, inside))


def _residual_name(outside: dict[str, str], inside: dict[str, str]) -> Callable[[str], str]:
    def name(path: str) -> str:
        if path in outside:
            return outside[path]
        group, block, layer = _BLOCK.fullmatch(path).groups()
        return f"layer{group}.{int(block) - 1}.{inside.get(layer, layer)}"

    return name


def _vgg(model: str, _) -> Layout:
    convolutions = (2, 2, 3, 3, 3) if model == "vgg16" else (2, 2, 4, 4, 4)
    names = {"hidden1": "classifier.0", "hidden2": "classifier.3", "classifier": "classifier.6"}
    position = 0  # In a sequence of convolutions, ReLUs and poolings.
    for block, count in enumerate(convolutions, start=1):
        for index in range(1, count + 1):
            names[f"block{block}_conv{index}/conv"] = f"features.{position}"
            position += 2
        position += 1
    return Layout(
        "torchvision",
        names.__getitem__,
        flattened=(("classifier.0", (512, 7, 7)),),
    )


def _squeezenet(_, arguments: dict) -> Layout:
    first = str(arguments.get("version", "1.0")) == "1.0"
    positions = (3, 4, 5, 7, 8, 9, 10, 12) if first else (3, 4, 6, 7, 9, 10, 11, 12)

    def name(path: str) -> str:
        if path in ("stem/conv", "classifier/conv"):
            return {"stem/conv": "features.0", "classifier/conv": "classifier.1"}[path]
        number, layer = re.fullmatch(r"fire(\d)/(\w+)/conv", path).groups()
        return f"features.{positions[int(number) - 2]}.{layer}"

    return Layout("torchvision", name)


def _facenet(*_) -> Layout:
    """Tim Esler's facenet-pytorch."""
    stem = ("1a", "2a", "2b", "3b", "4a", "4b")
    reductions = {"reduction_a": "mixed_6a", "reduction_b": "mixed_7a"}
    # Branches of one convolution are not numbered there; reduction_b has none of them.
    outside = {"embedding": "last_linear", "embedding_norm": "last_bn", "classifier": "logits"}

    def branch(path: str, is_single: bool) -> str:
        b, c, layer = re.fullmatch(r"branch(\d)_conv(\d)/(\w+)", path).groups()
        layer = "bn" if layer == "norm" else layer
        return f"branch{b}.{layer}" if is_single else f"branch{b}.{c}.{layer}"

    def name(path: str) -> str:
        if path in outside:
            return outside[path]
        part, rest = path.removeprefix("trunk/").split("/", 1)
        if part in reductions:
            is_single = part == "reduction_a" and rest.startswith("branch0")
            return f"{reductions[part]}.{branch(rest, is_single)}"
        if part.startswith("conv"):
            return f"conv2d_{stem[int(part[4:]) - 1]}.{'bn' if rest == 'norm' else rest}"
        stage, block = re.fullmatch(r"stage(\d)_(?:block)?(\w+)", part).groups()
        prefix = "block8" if block == "last" else f"repeat_{stage}.{int(block) - 1}"
        if rest == "up":
            return f"{prefix}.conv2d"
        rest = rest.removeprefix("branches/")
        return f"{prefix}.{branch(rest, is_single=rest.startswith('branch0'))}"

    return Layout("facenet-pytorch", name)


def _style(model: str, arguments: dict) -> Layout:
    """The authors' code, which follows PyTorch's fast_neural_style example."""
    uses_shift = model.startswith("shift")
    keeps_up2 = arguments.get("variant", "released") == "released"
    convolutions = {"down1", "up3"} | ({"up2"} if keeps_up2 else set())
    names = {"down": "conv", "up": "deconv"}
    norms = {"down1": 1, "down2": 2, "down3": 3, "up1": 4, "up2": 5}

    def name(path: str) -> str:
        layer = path.removesuffix("/conv").removesuffix("_norm")
        residual = re.fullmatch(r"residual(\d)_conv(\d)", layer)
        if path.endswith("_norm"):
            return "res{}.in{}".format(*residual.groups()) if residual else f"in{norms[layer]}"
        is_shift = uses_shift and layer not in convolutions
        if residual:
            return "res{}.conv{}.".format(*residual.groups()) + ("conv" if is_shift else "conv2d")
        kind, number = re.fullmatch(r"(down|up)(\d)", layer).groups()
        if not is_shift:
            return f"{names[kind]}{number}.conv2d"
        return f"{names[kind]}{number}." + ("conv" if kind == "down" else "conv2d.conv")

    # Instance norms of old PyTorch versions saved running statistics that nothing reads.
    ignored = r".*\.num_batches_tracked|(.*\.)?in\d\.running_(mean|var)"
    return Layout("the authors' style transfer code", name, ignored=ignored)


_LAYOUTS = (
    (r"(shift|depthwise)?resnet(20|56|110)(_projection)?", _cifar),
    (r"resnet50", _resnet50),
    (r"vgg1[69]", _vgg),
    (r"squeezenet", _squeezenet),
    (r"facenet", _facenet),
    (r"(shift_)?style_transformer", _style),
)
