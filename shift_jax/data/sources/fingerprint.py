"""What identifies the examples of a source, to tell whether two runs saw the same ones."""

from typing import NamedTuple

from shift_jax.data.sources.selections import Subset
from shift_jax.data.sources.source import Source


class Fingerprint(NamedTuple):
    """What identifies the examples of a source; see `fingerprint`."""

    class_names: tuple[str, ...] | None
    """One name per label, or None when the dataset has no names."""
    num_examples: int
    files: str | None
    """SHA-256 of the files' names and sizes, or None when the examples are not files."""


def fingerprint(source: Source) -> Fingerprint:
    """Identifies the examples of a source by what is known without decoding an image.

    For files this asks the file system for the size of each. The digest covers their names
    relative to the folder of the source, so that moving or copying the folder does not change it.

    Args:
      source: Any source. A `Subset` counts its own examples and takes the digest of all.
    """
    whole = source.source if isinstance(source, Subset) else source
    digest = getattr(whole, "files_digest", None)
    return Fingerprint(source.class_names, len(source), digest() if digest else None)
