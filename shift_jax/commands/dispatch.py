"""`shift-jax NAME …`: finds the command and runs it."""

from __future__ import annotations

import importlib
import sys
from argparse import Namespace
from collections.abc import Sequence
from types import ModuleType

from shift_jax.commands import exits
from shift_jax.commands.line import documentation
from shift_jax.errors import InputError, did_you_mean
from shift_jax.version import __version__

COMMANDS = (
    "train",
    "eval",
    "predict",
    "report",
    "stylize",
    "verify",
    "align-faces",
    "import-weights",
    "export",
    "count",
    "tables",
    "sweep",
    "allocation",
    "results",
    "figures",
    "accuracy-figures",
    "pack-arrays",
)
"""In the order in which `shift-jax --help` lists them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `shift-jax`, the console script, and returns the exit status.

    Args:
      arguments: default: those of this process.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in COMMANDS:
        module = command(name)
        return exits.run(lambda: module.line.parse(rest), module.main)
    return exits.run(lambda: Namespace(name=name), lambda options: _overview(options.name))


def command(name: str) -> ModuleType:
    """Imports one command and no other, since others take their time and more packages."""
    return importlib.import_module(f"shift_jax.commands.{name.replace('-', '_')}")


def _overview(name: str) -> None:
    if name == "--version":
        print(f"shift-jax {__version__}")
    elif name in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        print("usage: shift-jax COMMAND [ARGUMENTS]\n")
        for each in COMMANDS:
            summary = documentation(each).partition("\n\n")[0].replace("\n", " ")
            print(f"  {each:{width}}  {summary}")
        print("\nshift-jax COMMAND --help explains one; shift-jax --version prints the version.")
    elif name:
        raise InputError(
            f"There is no command {name!r}.{did_you_mean(name, COMMANDS)} "
            "shift-jax --help lists them."
        )
    else:
        raise InputError(f"Name a command: {', '.join(COMMANDS)}. shift-jax --help explains them.")
