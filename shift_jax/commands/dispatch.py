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
        return run(name, rest)
    return exits.run(lambda: Namespace(name=name), lambda options: _overview(options.name))


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status.

    Args:
      name: one of `COMMANDS`.
      arguments: default: those of this process.
    """
    module = command_module(name)
    arguments = sys.argv[1:] if arguments is None else arguments
    return exits.run(lambda: module.command_line().parse(arguments), module.main)


def call(name: str, arguments: Sequence[str]) -> None:
    """Runs one command like a function: mistakes are exceptions and not an exit status."""
    module = command_module(name)
    module.main(module.command_line().parse(arguments))


def command_module(name: str) -> ModuleType:
    """Imports one command and no other, since others take their time and more packages."""
    return importlib.import_module(f"shift_jax.commands.{name.replace('-', '_')}")


def _overview(name: str) -> None:
    if name == "--version":
        print(f"shift-jax {__version__}")
    elif name in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        print("usage: shift-jax COMMAND [ARGUMENTS]\n")
        for command in COMMANDS:
            summary = documentation(command).partition("\n\n")[0].replace("\n", " ")
            print(f"  {command:{width}}  {summary}")
        print("\nshift-jax COMMAND --help explains one; shift-jax --version prints the version.")
    elif name:
        raise InputError(
            f"There is no command {name!r}.{did_you_mean(name, COMMANDS)} "
            "shift-jax --help lists them."
        )
    else:
        raise InputError(f"Name a command: {', '.join(COMMANDS)}. shift-jax --help explains them.")
