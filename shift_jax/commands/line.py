"""The command line of every command: argparse, with one sentence for each mistake."""

from __future__ import annotations

import argparse
import ast
import math
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from shift_jax.commands import exits
from shift_jax.errors import InputError, check_choice, did_you_mean
from shift_jax.files import usable_path


class CommandLine(argparse.ArgumentParser):
    """What one command takes.

    A flag's value follows after "=" or as the next argument, a flag's name is written in full, and
    flags and other arguments come in any order. `parse` raises InputError for every mistake.

    Args:
      name: of the command, whose module's docstring is the help.
      needs: what the arguments are to name, as "Name two photos and a network".
      example: arguments that do.
      takes: what else the command takes: the arguments of the model that its `model` names, as
        `arguments` of the parsed options; or a config file and overrides, as `config`.
    """

    def __init__(
        self,
        name: str,
        needs: str = "",
        example: str = "",
        takes: Literal["", "model arguments", "config"] = "",
    ):
        super().__init__(
            prog=f"shift-jax {name}",
            description=documentation(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
            allow_abbrev=False,
        )
        self.add_argument("-h", "--help", action="help", help="Print this and exit.")
        self.flags: dict[str, argparse.Action] = {}
        self.switches: set[str] = set()
        self._needs = f"{needs}, as in {self.prog} {example}." if needs else ""
        self._takes = takes
        if takes == "config":
            self.add(
                "--config",
                "Config file. --config.FIELD=VALUE overrides a field of it.",
                str,  # `parse_flags` reads the path in it.
                required=True,
                metavar="FILE[:OPTIONS]",
            )

    def add(
        self,
        name: str,
        help: str,
        type: Callable[[str], Any] = str,
        *,
        choices: Sequence[str] = (),
        metavar: str | None = None,
        **settings: Any,
    ) -> None:
        """Adds a flag or a positional argument. An empty text is a value of none.

        Args:
          name: such as "--workdir" or "photo".
          help: what it means. The default is added to the sentence.
          type: converts the text. `bool` reads "true" and "false", and the flag alone is true.
            Others raise `ArgumentTypeError` with what they expected, such as "a number".
          choices: the texts that are allowed.
          metavar: the value's name in the help; default: that of the type, or the choices.
          **settings: others of argparse's `add_argument`.
        """
        if type is bool:
            choices = ("true", "false")

        def convert(text: str) -> Any:
            if not text:  # As from a shell's variable that is not set.
                hint = "give one" if settings.get("required") else "give one, or leave it out"
                raise RefusedError(f"{name}= has no value: {hint}.")
            try:
                if choices:
                    check_choice(name, text, choices)
                if isinstance(type, PathType):
                    return type(text, name)
                return text == "true" if type is bool else type(text)
            except ArgumentTypeError as expected:
                raise RefusedError(f"{name} is {text!r}, expected {expected}.") from expected
            except InputError as error:
                raise RefusedError(str(error)) from error

        default = settings.get("default")
        if default not in (None, []):
            help += f" Default: {str(default).lower() if type is bool else default}."
        is_flag = name.startswith("-")
        if metavar is None and is_flag:
            named = f"{{{','.join(choices)}}}" if choices else None
            metavar = getattr(type, "metavar", named)
        help = help.replace("%", "%%")  # argparse formats it.
        action = self.add_argument(name, type=convert, help=help, metavar=metavar, **settings)
        if is_flag:
            self.flags[name] = action
            if type is bool:
                self.switches.add(name)

    def add_process_flags(self) -> None:
        """Adds the flags of a command that may run as several processes."""
        self.add(
            "--distributed",
            "Whether this process is one of several. auto looks at the three flags below and at "
            "what SLURM, Open MPI, GKE and JAX_COORDINATOR_ADDRESS say; always lets JAX find the "
            "others, as on the hosts of a Cloud TPU slice.",
            choices=("auto", "always", "never"),
            default="auto",
        )
        self.add(
            "--coordinator_address", "Address of process 0, the same for all.", metavar="HOST:PORT"
        )
        self.add("--num_processes", "How many processes there are.", number(int, least=1))
        self.add("--process_id", "Number of this process, from 0.", number(int, least=0))

    def run(self, main: Callable[[Namespace], object]) -> NoReturn:
        """Ends this process with the exit status of the command, whose function is `main`."""
        sys.exit(exits.run(lambda: self.parse(sys.argv[1:]), main))

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Returns the options.

        Raises:
          InputError: a mistake in the arguments.
          SystemExit: with status 0, after printing the help.
        """
        flags, others, words = self._separate(arguments)
        if any(word.startswith("-") for word in words):
            words.insert(0, "--")
        try:
            options = self.parse_args([*flags, *words])
        except RefusedError as error:
            raise InputError(str(error)) from error.__cause__
        if self._takes == "model arguments":
            options.arguments = self._model_arguments(options.model, others)
        elif self._takes == "config":
            from shift_jax.commands.config_file import load_config

            options.config = load_config(options.config, others)
        return options

    def error(self, message: str) -> NoReturn:
        """Raises InputError; argparse calls it."""
        raise InputError(f"{message[0].upper()}{message[1:]}. {self._needs}".strip())

    def _separate(self, arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
        """The command's own flags and the others, as --flag=value each, and what is not a flag."""
        flags, others, words = [], [], []
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            flag, equals, _ = argument.partition("=")
            if argument == "--":
                words += rest
                break
            if not argument.startswith("-") or argument == "-":
                words.append(argument)
                continue
            if argument in ("-h", "--help"):
                self.print_help()
                self.exit()
            if not flag.startswith("--"):
                raise InputError(f"{argument!r} is not a flag: flags begin with --.")
            is_override = self._takes == "config" and flag.startswith(("--config.", "--noconfig."))
            if flag not in self.flags and not is_override and self._takes != "model arguments":
                raise InputError(
                    f"There is no flag {flag}: expected {', '.join(self.flags)}."
                    f"{did_you_mean(flag[2:], [name[2:] for name in self.flags])}"
                )
            if flag in self.switches and not equals and rest[:1] not in (["true"], ["false"], [""]):
                argument = f"{flag}=true"
            elif not equals and rest and not rest[0].startswith("--"):
                argument = f"{flag}={rest.pop(0)}"
            elif not equals and not is_override:  # Overrides of booleans may stand alone.
                raise InputError(f"{flag!r} has no value: expected {flag}=VALUE.")
            (flags if flag in self.flags else others).append(argument)
        return flags, others, words

    def _model_arguments(self, model: str | None, texts: Sequence[str]) -> dict[str, Any]:
        from shift_jax.config import literal
        from shift_jax.models.registry import check_arguments

        pairs = (text.removeprefix("--").partition("=") for text in texts)
        arguments = {key: literal(value) for key, _, value in pairs}
        if model is not None:
            own = [flag[2:] for flag in self.flags]
            check_arguments(model, [key for key in arguments if key != "num_classes"], own)
        return arguments


class RefusedError(Exception):
    """A mistake in one argument. Not a ValueError: argparse would print a sentence of its own."""


def documentation(name: str) -> str:
    """Returns the docstring of a command's module, from its source: python -OO leaves it out."""
    module = Path(__file__).with_name(f"{name.replace('-', '_')}.py")
    return ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""


class PathType:
    """Reads a path by `usable_path`. Runs keep the names of folders, which must be UTF-8."""

    def __init__(self, metavar: str, *, any_bytes: bool):
        self.metavar = metavar
        self._any_bytes = any_bytes

    def __call__(self, text: str, name: str = "The path") -> Path:
        return usable_path(name, text, any_bytes=self._any_bytes)


FILE, PATH = (PathType(metavar, any_bytes=True) for metavar in ("FILE", "PATH"))
DIR = PathType("DIR", any_bytes=False)


def number(
    kind: type[int] | type[float],
    least: float = -math.inf,
    most: float = math.inf,
    meaning: str = "",
) -> Callable[[str], float]:
    """Returns what reads a number from `least` to `most`, which `meaning` names in the sentence."""
    expected = meaning or ("a whole number" if kind is int else "a number")
    if math.isfinite(most):
        expected += f" from {least:g} to {most:g}"
    elif math.isfinite(least):
        expected += f" of at least {least:g}"

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or math.isinf(value):
            raise ArgumentTypeError(expected)
        return value

    return convert
