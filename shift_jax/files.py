"""Files and folders that appear whole or not at all, locks, and checks of what a user names.

Whatever a user keeps is written through here. New content is first written beside its target, in a
file or folder whose name begins with `.partial`, which no data source takes for a photo, and then
renamed, so that a reader finds the old content or the new one even if the writer is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from shift_jax.errors import InputError

_PREFIX = ".partial"


def usable_path(name: str, text: str | os.PathLike[str], *, any_bytes: bool = False) -> Path:
    """Returns a path that the user named, with ~ expanded. Every such path goes through here.

    Whether there is a file or a folder does not matter, only that there could be one.

    Args:
      name: of the flag or field, for the message.
      text: the path.
      any_bytes: whether its name may be other than UTF-8, as it may be if no JSON keeps it.

    Raises:
      InputError: the path is empty, has a NUL, is not UTF-8, is in a home folder that is not known,
        below a file, or too long.
    """
    text = os.fspath(text)
    shown = ascii(text) if len(text) <= 80 else f"{text[:60]!a} …"
    if not text:
        raise InputError(f"{name} is empty, expected a path: give one, such as . for this folder.")
    if "\0" in text:
        raise InputError(f"{name} is {shown}, which has a NUL: name another path.")
    try:
        text.encode("utf-8", "surrogateescape" if any_bytes else "strict")
    except UnicodeEncodeError as error:
        raise InputError(f"{name} is {shown}, which is not UTF-8: name another path.") from error
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        raise InputError(
            f"{name} is {shown}, but no such home folder is known: write ./{text} for a file or "
            "folder of that name."
        )
    path = Path(expanded)
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENAMETOOLONG):
            raise InputError(
                f"{text} cannot exist ({error.strerror}): choose another {name}."
            ) from error
    return path


def absolute_path(text: str | os.PathLike[str]) -> str:
    """Returns a path from the root, without . and .. and a slash at its end; URLs as they are."""
    text = os.fspath(text)
    return text if "://" in text else os.path.abspath(text)


def same_place(a: str, b: str) -> bool:
    """Whether two paths, ~ and links in them followed, lead to the same place."""
    try:
        return len({os.path.realpath(os.path.expanduser(path)) for path in (a, b)}) == 1
    except ValueError:  # A NUL, in a damaged file.
        return False


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces `path` if the block raises nothing.

    The content is on the disk before it takes the name, with the permissions of any new file. If
    the block raises, the temporary file is removed. If the process is killed, the next writer of
    `path` reuses it. Several processes may write the same file at once; the last one wins.

    Args:
      path: the file to create or replace. The temporary path has its extension.

    Raises:
      OSError: the file cannot be written; `filename` is `path`, not the temporary one.
    """
    path = Path(path)
    with errors_naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary, descriptor = _open_beside(path)
        try:
            yield temporary
            os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)


def _open_beside(path: Path) -> tuple[Path, int]:
    """Opens an empty temporary file that no other process is writing, which the lock tells."""
    number = 0
    while True:
        # Only the end of the name, which may already be as long as the file system allows.
        temporary = path.with_name(f"{_PREFIX}{number}.{path.name[-40:]}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _flock(descriptor, wait=False)
            # Another writer may have renamed or removed it before we had the lock.
            if os.path.samestat(os.fstat(descriptor), os.stat(temporary)):
                os.ftruncate(descriptor, 0)
                return temporary, descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        number += 1


@contextlib.contextmanager
def output_file(
    path: str | os.PathLike[str],
    advice: str = "name a file in a folder that exists and can be written to",
) -> Iterator[Path]:
    """Does what `replaced_file` does for a path that the user chose, with InputErrors."""
    with as_input_error(path, advice), replaced_file(path) as temporary:
        yield temporary


@contextlib.contextmanager
def replaced_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary folder to fill, which becomes `path` if the block raises nothing.

    Args:
      path: the folder to create; only an empty one may be there. Its parent must exist.

    Raises:
      OSError: the folder cannot be written, or `path` is a file or not empty.
    """
    path = Path(path)
    with (
        errors_naming(path),
        tempfile.TemporaryDirectory(prefix=f"{_PREFIX}.", dir=path.parent) as outer,
    ):
        # Inside it, because a folder of tempfile's is for its owner alone.
        folder = Path(outer) / "folder"
        folder.mkdir()
        yield folder
        os.replace(folder, path)


@contextlib.contextmanager
def errors_naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an OSError name `path` where it names a temporary file or, as a failed write, none."""
    try:
        yield
    except OSError as error:
        parts = Path(error.filename).parts if isinstance(error.filename, str) else (_PREFIX,)
        if any(part.startswith(_PREFIX) for part in parts):
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def as_input_error(path: str | os.PathLike[str], advice: str) -> Iterator[None]:
    """Turns an OSError into an InputError saying that `path` cannot be written, with the advice."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise InputError(f"{os.fspath(path)} cannot be written ({why}): {advice}.") from error


@contextlib.contextmanager
def lock(path: str | os.PathLike[str], *, wait: bool) -> Iterator[TextIO]:
    """Locks a file, created if missing, against other processes; yields it, open to append.

    The system releases the lock when the process ends, however it ends, so that nothing has to be
    removed after a crash. On a file system without locks nobody is kept out.

    Args:
      path: the lock's file.
      wait: whether to wait for the process that has the lock.

    Raises:
      BlockingIOError: another process has the lock, and `wait` is false.
      OSError: the file cannot be opened.
    """
    with Path(path).open("a+") as file:
        _flock(file.fileno(), wait=wait)
        yield file


def _flock(descriptor: int, *, wait: bool) -> None:
    # Not a part of Windows' Python, where the rest of the package can still be imported.
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        pass  # A file system without locks.
