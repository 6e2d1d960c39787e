"""Prints every layer of a network with its parameters and multiply-accumulates (MACs).

    shift-jax count shiftnet_a --image_size=224 --format=json
    shift-jax count shiftresnet20 --expansion=3 --num_classes=100

Prints the output shape, parameters, MACs, bytes of the input and output activations, and MACs per
element moved (Eq. 4 and 5 of the paper). All flags but the two below are arguments of the model,
such as --expansion=3, --num_classes=10, --width=0.5**0.5 or --dtype=bfloat16.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from argparse import ArgumentTypeError, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from shift_jax.commands.line import CommandLine

if TYPE_CHECKING:
    from shift_jax.counting import LayerRow


def _image_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)(?:[x×]([1-9]\d*))?", text)
    if not match:
        raise ArgumentTypeError("pixels such as 224, or height and width as 224x192")
    return int(match[1]), int(match[2] or match[1])


line = CommandLine("count", "Name one model", "shiftnet_a", takes="model arguments")
line.add("model", "Name such as shiftnet_a; shift_jax.list_models() returns all of them.")
line.add(
    "--image_size",
    "Side in pixels, such as 224, or height and width, such as 224x192. Default: the published "
    "size.",
    _image_size,
    metavar="SIZE",
)
line.add(
    "--format", "Format of the table.", choices=("text", "csv", "json", "markdown"), default="text"
)


def main(options: Namespace) -> None:
    from shift_jax.counting import layer_table
    from shift_jax.markdown import markdown_table, text_table
    from shift_jax.models import create_model, model_record

    height, width, channels = model_record(options.model).image_shape
    height, width = options.image_size or (height, width)
    model = create_model(options.model, **options.arguments)
    rows = layer_table(model, (height, width, channels))
    totals = {"params": sum(row.params for row in rows), "macs": sum(row.macs for row in rows)}
    if options.format == "json":
        head = {
            "model": options.model,
            "arguments": options.arguments,
            "image_shape": (height, width, channels),
        }
        layers = [asdict(row) for row in rows]
        print(json.dumps({**head, **totals, "layers": layers}, indent=2, default=str))
        return
    cells = [_cells(row) for row in rows]
    if options.format == "csv":
        writer = csv.DictWriter(sys.stdout, cells[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)
        return
    title = [options.model, *(f"{key}={value}" for key, value in options.arguments.items())]
    total = {
        **dict.fromkeys(cells[0]),
        "name": "total",
        "kind": " ".join(title),
        "output_shape": _by((height, width, channels)),
        **totals,
    }
    table = text_table if options.format == "text" else markdown_table
    print(table([*cells, total], total=True))


def _cells(row: LayerRow) -> dict[str, Any]:
    return {
        column: _by(cell) if isinstance(cell, tuple) else cell
        for column, cell in asdict(row).items()
    }


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


if __name__ == "__main__":
    line.run(main)
