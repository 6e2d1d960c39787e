"""Identifies the examples of a source, to tell whether two runs saw the same ones."""

from typing import NamedTuple

from shift_jax.data.sources.selections import Subset
from shift_jax.data.sources.source import Source


class Fingerprint(NamedTuple):
    """What identifies the examples of a source; see `fingerprint`."""

    class_names: tuple[str, ...] | None
    """One name per label, or None if the dataset has no names."""
    num_examples: int
    files: str | None
    """SHA-256 of the names and sizes of the files, or None if the examples are not files."""


def fingerprint(source: Source) -> Fingerprint:
    """Identifies the examples of a source without decoding any image.

    If the examples are files, this asks the file system for the size of each. Names are relative to
    the folder of the source, so moving or copying the folder does not change the digest.

    Args:
      source: Any source. For a `Subset`, the digest is that of the whole source.
    """
    whole = source.source if isinstance(source, Subset) else source
    digest = getattr(whole, "files_digest", None)
    return Fingerprint(source.class_names, len(source), digest() if digest else None)
