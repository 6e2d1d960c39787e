"""Writes a checkpoint's weights as one safetensors file, which knows its network and config.

    python -m shift_jax.weights.export_safetensors --workdir=runs/x --output=x.safetensors
    python -m shift_jax.weights.import_torch x.safetensors --output=DIR

reads it back. --checkpoint=runs/x/checkpoints/1200 takes that checkpoint, not the newest, and
--dtype=bfloat16 writes half the bytes.
"""

import sys

from absl import flags


def main() -> None:
    """Reads the flags and writes the file."""
    from shift_jax.training.runs.import_weights import export_safetensors

    export_safetensors(
        _OUTPUT.value, workdir=_WORKDIR.value, checkpoint=_CHECKPOINT.value, dtype=_DTYPE.value
    )
    print(f"written to {_OUTPUT.value}")


if __name__ == "__main__":
    from shift_jax.training import cli

    _WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run; needs no --checkpoint.")
    _CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of one checkpoint.")
    _DTYPE = flags.DEFINE_string("dtype", "float32", "Of the weights, or bfloat16.")
    _OUTPUT = flags.DEFINE_string("output", None, "File to write.", required=True)
    sys.exit(cli.run(main))
