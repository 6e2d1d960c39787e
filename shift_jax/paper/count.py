"""Parameters and multiply-accumulates (MACs) of a network, layer by layer.

    python -m shift_jax.paper.count shiftnet_a --image_size=224 --format=json

prints the network's layers; `--help` explains the arguments. `shift_jax.counting` counts any linen
network.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from shift_jax.counting import LayerRow, layer_table
from shift_jax.errors import InputError, did_you_mean
from shift_jax.markdown import markdown_table, text_table
from shift_jax.models import create_model, model_record
from shift_jax.models.arguments import split_arguments


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
            f"{given}: expected one, as in python -m shift_jax.paper.count shiftnet_a."
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
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(_cells, rows))
    else:
        table = text_table if options["format"] == "text" else markdown_table
        total = {
            **dict.fromkeys(_COLUMNS),
            "name": "total",
            "kind": " ".join(title),
            "output_shape": _by(image_shape),
            **totals,
        }
        print(table([*map(_cells, rows), total], total=True))


_COLUMNS = [field.name for field in fields(LayerRow)]
_FORMATS = ("text", "csv", "json", "markdown")
_USAGE = """\
python -m shift_jax.paper.count MODEL [--image_size=224] [--format=text] [--ARGUMENT=VALUE ...]

Prints every layer of a network: output shape, parameters, multiply-accumulates (MACs), bytes of
its input and output activations, and MACs per element moved (Eq. 4 and 5 of the paper).

MODEL is a name such as shiftnet_a; shift_jax.list_models() lists all.
--image_size=224 or --image_size=224x192 (height x width); default: the published one.
--format=text, csv, json or markdown.
All others are arguments of the model, such as --expansion=3, --num_classes=10, --width=0.5**0.5
or --dtype=bfloat16."""


def _cells(row: LayerRow) -> dict[str, Any]:
    return {
        column: _by(cell) if isinstance(cell, tuple) else cell
        for column, cell in asdict(row).items()
    }


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
