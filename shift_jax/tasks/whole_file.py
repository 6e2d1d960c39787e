"""Files that are there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shift_jax.errors import InputError


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a path to write to; what is there takes the place of `path` if nothing goes wrong.

    Raises:
      InputError: a file that cannot be written.
    """
    # Beside it, so that the rename stays on one file system; its ending tells the format.
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name a file in a folder that exists and "
            "can be written to."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
