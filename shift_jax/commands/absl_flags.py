"""The doors of `train.py` and `eval.py`: their commands, with absl's flags in place of argparse."""

from __future__ import annotations

import argparse
import sys

from shift_jax.commands import exits
from shift_jax.commands.dispatch import command
from shift_jax.commands.line import RefusedError
from shift_jax.errors import InputError


def run(name: str) -> int:
    """Runs a command that has no positional arguments, and returns the exit status."""
    exits.prepare_streams()
    from absl import app, flags
    from ml_collections import config_flags

    from shift_jax.commands.config_file import parse_flags

    class Converter(flags.ArgumentParser):
        def __init__(self, action: argparse.Action):
            self.action = action

        def parse(self, value):
            assert callable(self.action.type)  # Never None: `line` gives every flag its type.
            return self.action.type(value) if isinstance(value, str) else value

    flags.disclaim_key_flags()  # They are those of the script that calls this.
    module = command(name)
    line = module.line
    script = sys.modules["__main__"]
    script.__doc__ = script.__doc__ or line.description  # python -OO leaves it out.
    for action in line.flags.values():
        if action.dest == "config":
            config_flags.DEFINE_config_file("config", help_string=action.help)
        elif f"--{action.dest}" in line.switches:
            flags.DEFINE_boolean(action.dest, action.default, action.help or "")
        else:
            define = flags.DEFINE_multi if isinstance(action.default, list) else flags.DEFINE
            define(
                Converter(action),
                name=action.dest,
                default=action.default,
                help=action.help,
                serializer=flags.ArgumentSerializer(),
            )
        if action.required:
            flags.mark_flag_as_required(action.dest)
    app.define_help_flags()

    def parse() -> argparse.Namespace:
        try:
            parse_flags(flags.FLAGS, sys.argv)
        except RefusedError as error:
            raise InputError(str(error)) from error
        return argparse.Namespace(
            **{a.dest: flags.FLAGS[a.dest].value for a in line.flags.values()}
        )

    return exits.run(parse, module.main)
