"""Parameters and multiply-accumulates (MACs) of a network, from the computation itself.

    python -m shift_jax.analysis.count shiftnet_a --image_size=224 --format=json

prints the network's layers; `--help` explains the arguments. `count_parameters`, `count_macs` and
`layer_table` count any linen network.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial

import flax.linen as nn
import jax

from shift_jax.analysis.grid import csv_grid, markdown_grid, text_grid
from shift_jax.analysis.layer_table import LayerRow, abstract_variables, layer_table
from shift_jax.errors import InputError, did_you_mean
from shift_jax.models import create_model, model_record
from shift_jax.models.arguments import split_arguments
from shift_jax.models.cifar import CifarNet

__all__ = [
    "LayerRow",
    "count_macs",
    "count_parameters",
    "layer_table",
    "paper_cifar_formula",
    "paper_cifar_macs",
]


def count_parameters(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters: weights, biases, BatchNorm scales and biases.

    Nothing is computed; only shapes are. BatchNorm's running statistics do not count.

    Args:
      model: called as `model(images, train=False)`, or `model(images)` where it takes no `train`.
      image_shape: (height, width, channels).
    """
    variables = abstract_variables(model, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the true MACs of one image: those of every convolution and matrix product traced.

    The paper calls them FLOPs. Additions, activations, normalisations and pooling do not count.

    Args:
      model: as for `count_parameters`; any network, not only this package's.
      image_shape: (height, width, channels).

    Raises:
      InputError: the network has a loop whose length is not known before it runs.
    """
    return sum(row.macs for row in layer_table(model, image_shape))


def paper_cifar_macs(model: CifarNet) -> int:
    """Returns the MACs as the paper counted them in Table 5, for its CIFAR networks only.

    Every convolution of a block, the shortcut's too, is taken at the block's INPUT resolution; the
    stem and the classifier are constants, 1024·27·64 and 1024·64·4·10, whatever the network.

    Raises:
      InputError: not a CIFAR network.
    """
    if not isinstance(model, CifarNet):
        raise InputError(
            f"The paper's counter is a formula for its CIFAR networks, not for "
            f"{type(model).__name__}: use count_macs."
        )
    parameters = abstract_variables(model, (32, 32, 3))["params"]
    kernels = {
        "/".join(key.key for key in path[:-1]): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
        if path[-1].key == "kernel"
    }
    return paper_cifar_formula(kernels)


def paper_cifar_formula(kernels: Mapping[str, int]) -> int:
    """The formula of `paper_cifar_macs`, from the size of each layer's kernel.

    Args:
      kernels: weights by the layer's path, such as "group1_block1/conv1"; those outside the blocks
        do not matter.
    """
    total = 1024 * 27 * 64 + 1024 * 64 * 4 * 10
    for path, size in kernels.items():
        block = re.match(r"group(\d)_block(\d+)/", path)
        if block:
            group, index = map(int, block.groups())
            # Group g works at side 32 / 2^(g-1); its first block's input is still twice that.
            side = 32 >> (group - 1 if index > 1 or group == 1 else group - 2)
            total += size * side**2
    return total


def main(arguments: Sequence[str]) -> None:
    """Prints the layers of the network that the command line's arguments name."""
    if {"--help", "-h"} & set(arguments):
        print(_USAGE)
        return
    names, options, model_arguments = split_arguments(
        arguments, {"image_size": None, "format": "text"}
    )
    if len(names) != 1:
        given = f"{len(names)} models are named" if names else "No model is named"
        raise InputError(
            f"{given}: expected one, as in python -m shift_jax.analysis.count shiftnet_a."
        )
    if options["format"] not in _FORMATS:
        raise InputError(
            f"format is {options['format']!r}, expected one of {', '.join(_FORMATS)}."
            f"{did_you_mean(options['format'], _FORMATS)}"
        )
    image_shape = model_record(names[0]).image_shape
    if options["image_size"] is not None:
        image_shape = (*_image_size(options["image_size"]), image_shape[2])
    rows = layer_table(create_model(names[0], **model_arguments), image_shape)
    title = [names[0], *(f"{key}={value}" for key, value in model_arguments.items())]
    totals = {"params": sum(row.params for row in rows), "macs": sum(row.macs for row in rows)}
    if options["format"] == "json":
        head = {"model": names[0], "arguments": model_arguments, "image_shape": image_shape}
        layers = [asdict(row) for row in rows]
        print(json.dumps({**head, **totals, "layers": layers}, indent=2, default=str))
    elif options["format"] == "csv":
        print(csv_grid(_COLUMNS, [_cells(row) for row in rows]))
    else:
        grid = text_grid if options["format"] == "text" else markdown_grid
        total = ["total", " ".join(title), _by(image_shape), *totals.values(), None, None]
        print(grid(_COLUMNS, [*map(_cells, rows), total], total=True))


_COLUMNS = [field.name for field in fields(LayerRow)]
_FORMATS = ("text", "csv", "json", "markdown")
_USAGE = """\
python -m shift_jax.analysis.count MODEL [--image_size=224] [--format=text] [--ARGUMENT=VALUE ...]

Prints every layer of a network: output shape, parameters, multiply-accumulates (MACs), bytes of
its input and output activations, and MACs per element moved (Eq. 4 and 5 of the paper).

MODEL is a name such as shiftnet_a; shift_jax.list_models() lists all.
--image_size=224 or --image_size=224x192 (height x width); default: the published one.
--format=text, csv, json or markdown.
All others are arguments of the model, such as --expansion=3, --num_classes=10, --width=0.5**0.5
or --dtype=bfloat16."""


def _cells(row: LayerRow) -> list:
    cells = [getattr(row, column) for column in _COLUMNS]
    return [_by(cell) if isinstance(cell, tuple) else cell for cell in cells]


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text)
    if not match:
        raise InputError(
            f"image_size is {text!r}, expected pixels such as 224, or height and width as 224x192."
        )
    return int(match[1]), int(match[2] or match[1])


if __name__ == "__main__":
    # Counting itself needs none of what the command line does.
    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
