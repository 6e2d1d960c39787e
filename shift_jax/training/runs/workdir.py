"""The folder of a run: the config it belongs to, and the process that locks it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from shift_jax.config import TASKS, ExperimentConfig, flatten, from_dict, to_dict
from shift_jax.config.setting import walk
from shift_jax.errors import InputError
from shift_jax.files import lock, replaced_file, same_place

RUNTIME_ONLY_FIELDS = frozenset(
    field.name for field in walk(ExperimentConfig()) if field.setting.runtime_only
)
"""Fields that change how a run is carried out, but not what it computes."""

_PATH_FIELDS = frozenset(
    field.name for kind in TASKS.values() for field in walk(kind()) if field.setting.path
)


def claim_workdir(workdir: Path, config: dict, *, same_data: bool = False) -> None:
    """Writes a config to `workdir`, or checks that it is the one there.

    Args:
      workdir: the run's folder, created if missing.
      config: plain JSON values.
      same_data: whether the dataset is known to be that of the run, wherever its folder is.

    Raises:
      InputError: the folder belongs to another config (names the first fields that differ), has
        checkpoints but no config, or cannot be created or read.
    """
    path = workdir / "config.json"
    if not path.exists():
        if any((workdir / "checkpoints").glob("*")):
            raise InputError(
                f"{workdir} has checkpoints but no config.json, so they may belong to another "
                "config: choose another --workdir."
            )
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(path, config)
        except OSError as error:
            _refuse(workdir, error)
        return
    theirs, ours = flatten(_completed(read_config(workdir))), flatten(config)
    free = RUNTIME_ONLY_FIELDS if same_data else _runtime_only_fields(ours)
    different = [
        f"{key if key.isprintable() else repr(key)} is {_short(theirs.get(key))} there and "
        f"{_short(ours.get(key))} here"
        for key in sorted(theirs.keys() | ours.keys())
        if key not in free and not _is_same(key, theirs.get(key), ours.get(key))
    ]
    if different:
        more = f" and {len(different) - 3} more differ" if len(different) > 3 else ""
        raise InputError(
            f"The workdir {workdir} belongs to another config: {', '.join(different[:3])}{more}; "
            "choose another --workdir, or delete that one to start over."
        )


def _completed(config: dict) -> dict:
    """Returns a config with the fields that the package has gained since it was written."""
    try:
        return to_dict(from_dict(config))
    except InputError:  # The comparison names the fields of another version.
        return config


def _is_same(key: str, theirs: Any, ours: Any) -> bool:
    are_paths = key in _PATH_FIELDS and all(
        each and isinstance(each, str) for each in (theirs, ours)
    )
    return theirs == ours or (are_paths and same_place(theirs, ours))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:40]} … {text[-20:]}"


def _refuse(workdir: Path, error: OSError) -> NoReturn:
    """Raises the error for a folder that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error  # Not the caller's fault.
    raise InputError(
        f"The workdir {workdir} cannot be written ({error.strerror}): choose another."
    ) from error


def computed_fields(config: dict) -> dict[str, Any]:
    """Returns the fields, flattened, that change what a run computes."""
    fields = flatten(config)
    free = _runtime_only_fields(fields)
    return {key: value for key, value in fields.items() if key not in free}


def _runtime_only_fields(fields: dict[str, Any]) -> frozenset[str]:
    # A dataset's folder may differ between machines, but for these the folder is the dataset.
    is_folder = fields.get("data.name") in ("folder", "identities", "photos")
    return RUNTIME_ONLY_FIELDS - ({"data.data_dir"} if is_folder else set())


@contextlib.contextmanager
def workdir_lock(workdir: Path) -> Iterator[None]:
    """Keeps other processes from writing into `workdir` while the block runs.

    Raises:
      InputError: another process has the lock, or `workdir` cannot be written.
    """
    path = workdir / "lock"
    with contextlib.ExitStack() as held:
        try:
            file = held.enter_context(lock(path, wait=False))
        except BlockingIOError:
            owner = path.read_text().strip() or "another process"
            raise InputError(
                f"The workdir {workdir} is in use by {owner}: wait until that run ends, stop it, "
                "or choose another --workdir."
            ) from None
        except OSError as error:
            _refuse(workdir, error)
        with contextlib.suppress(OSError):  # On a full disk, the lock names no owner.
            file.truncate(0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield


def read_config(workdir: Path) -> dict:
    """Returns the config that a workdir belongs to.

    Raises:
      InputError: a folder without a run, or a damaged config.json.
    """
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        runs = sorted(each.parent.name for each in workdir.glob("*/config.json"))
        if runs:
            raise InputError(
                f"{workdir} holds the runs {', '.join(runs)}: name one of them, as in "
                f"{workdir / runs[0]}."
            ) from error
        raise InputError(
            f"{workdir} is not the workdir of a run (config.json: {error.strerror}): give the "
            "folder that train.py was called with."
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): restore it or start over.") from error
    if not isinstance(config, dict) or _is_deeper(config, 16):
        raise InputError(f"{path} is not the config of a run: restore it or start over.")
    return config


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether JSON values nest so deep that no config did, and Python may fail on them."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in parts)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON; `path` holds either the old content or all of the new one."""
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
