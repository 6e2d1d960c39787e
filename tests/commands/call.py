"""Commands as functions of this process, whose mistakes are exceptions."""

from collections.abc import Sequence

from shift_jax.commands.dispatch import command


def call(name: str, arguments: Sequence[str]) -> None:
    module = command(name)
    module.main(module.line.parse(arguments))
