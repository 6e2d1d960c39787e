"""Agreement among the processes of a run. All processes must make the same calls."""

from __future__ import annotations

import json
import zlib

import jax
import numpy as np
from jax.experimental import multihost_utils

from shift_jax.errors import InputError


def is_first() -> bool:
    """Whether this is process 0, which writes what a run writes once."""
    return jax.process_index() == 0


def broadcast_from_process_0(text: str) -> str:
    """Returns process 0's text, of up to 4,096 bytes, in all processes."""
    if jax.process_count() == 1:
        return text
    message = np.zeros(4096, np.uint8)
    encoded = text.encode()
    message[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(message)).rstrip(b"\0").decode()


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process; the same answer in all of them."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def check_same(value: object, sentence: str) -> None:
    """Raises InputError in all processes if the value differs in any of them.

    Args:
      value: a JSON-able value.
      sentence: the message, with {process} for the number of the first process that differs.
    """
    if jax.process_count() == 1:
        return
    checksum = zlib.crc32(json.dumps(value, sort_keys=True).encode())
    all_of_them = multihost_utils.process_allgather(np.asarray(checksum, np.uint32))
    different = np.flatnonzero(all_of_them != all_of_them[0])
    if different.size:
        raise InputError(sentence.format(process=different[0]))


def barrier() -> None:
    """Waits until every process has called it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("done")
