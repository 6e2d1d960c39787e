"""The folder of one checkpoint: how to write it, read it and check it.

It holds two Orbax items: `state`, the arrays as nested dicts, and `manifest`, a JSON file with
the config, the metrics, facts about the training, and the type, shape and CRC-32 of every array.
The manifest tells a changed model from a damaged checkpoint, and detects flipped bits, which Orbax
restores silently.
"""

import json
import textwrap
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from shift_jax.errors import InputError
from shift_jax.files import replaced_file


class DamagedError(InputError):
    """A folder is not an intact checkpoint; `why` is the reason alone."""

    def __init__(self, folder: Path, why: str):
        super().__init__(
            f"{folder} is not a checkpoint, or a damaged one ({why}); expected the folder of an "
            "intact one, such as runs/x/checkpoints/1200."
        )
        self.why = why


def as_items(
    state: Any, config: dict, metrics: dict[str, float], training: dict[str, Any]
) -> ocp.args.Composite:
    """Returns the items for Orbax to save; raises `InputError` if `config` is not JSON-able."""
    leaves = _by_name(state)
    arrays = {name: jax.random.key_data(x) if _is_key(x) else x for name, x in leaves.items()}
    manifest = {
        "config": config,
        "metrics": metrics,
        "training": training,
        "tensors": {name: _describe(x) for name, x in leaves.items()},
        "key_impls": {n: str(jax.random.key_impl(x)) for n, x in leaves.items() if _is_key(x)},
        "checksums": _checksums(arrays),
    }
    try:
        # A copy, which the caller cannot change before it is saved.
        manifest = json.loads(json.dumps(manifest))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The config cannot be stored in a checkpoint ({error}); use only dicts, "
            "lists, strings, numbers, booleans and None."
        ) from error
    return ocp.args.Composite(
        state=ocp.args.PyTreeSave(unflatten_dict(arrays, sep="/")),
        manifest=ocp.args.JsonSave(_signed(manifest)),
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """Returns the manifest in `folder`; raises `DamagedError`."""
    try:
        signed = json.loads((folder / "manifest" / "metadata").read_bytes())
        manifest, checksum = signed["content"], signed["checksum"]
    except OSError as error:
        raise DamagedError(folder, f"its manifest: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(folder, "its manifest is not valid JSON") from error
    if checksum != _json_checksum(manifest):
        raise DamagedError(folder, "its manifest does not match its checksum")
    return manifest


def update_manifest(folder: Path, **entries: Any) -> None:
    """Replaces entries of a complete checkpoint's manifest; raises `DamagedError`."""
    signed = _signed(read_manifest(folder) | entries)
    path = folder / "manifest" / "metadata"
    with replaced_file(path) as temporary:
        temporary.write_text(json.dumps(signed))


def read_state(folder: Path, abstract_state: Any) -> Any:
    """Returns the state in `folder`; raises `DamagedError`, or `InputError` for another model."""
    manifest = read_manifest(folder)
    leaves = _by_name(abstract_state)
    saved, expected = manifest["tensors"], {name: _describe(x) for name, x in leaves.items()}
    for name in expected | saved:
        theirs, ours = saved.get(name, "missing"), expected.get(name, "missing")
        if theirs != ours:
            raise InputError(
                f"Checkpoint {folder} holds another model: {name!r} is {theirs} there and {ours} "
                "here; use the config of that run or another directory."
            )
    wanted = {name: ocp.ArrayRestoreArgs(sharding=x.sharding) for name, x in leaves.items()}
    arrays = _read_arrays(folder, manifest, wanted)
    for name, impl in manifest["key_impls"].items():
        arrays[name] = jax.random.wrap_key_data(arrays[name], impl=impl)
    restored = [arrays[name] for name in leaves]
    return jax.tree.unflatten(jax.tree.structure(abstract_state), restored)


def restore_variables(path: str | PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns `({"params": ..., "batch_stats": ...}, config)` of one checkpoint.

    The variables are nested dicts of NumPy arrays, whatever devices saved them, and the averages
    if the run kept some. `path` is the folder of one step, such as `runs/x/checkpoints/1200`.
    Raises `InputError` if it is not, or if it is damaged.
    """
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    tensors = manifest["tensors"]
    prefix = "ema/" if any(name.startswith("ema/") for name in tensors) else ""
    kinds = ("params", "batch_stats")
    names = [n for n in tensors if n.startswith(tuple(f"{prefix}{kind}/" for kind in kinds))]
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    arrays = _read_arrays(folder, manifest, dict.fromkeys(names, as_numpy))
    arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
    return {kind: {} for kind in kinds} | unflatten_dict(arrays, sep="/"), manifest["config"]


def _read_arrays(folder: Path, manifest: Mapping, wanted: Mapping[str, ocp.RestoreArgs]) -> dict:
    """Returns the wanted arrays by name; raises `DamagedError`."""
    tree = unflatten_dict(dict(wanted), sep="/")
    args = ocp.args.PyTreeRestore(tree, restore_args=tree, partial_restore=True)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arrays = flatten_dict(reader.restore(folder / "state", args=args), sep="/")
    except (MemoryError, jax.errors.JaxRuntimeError):
        raise  # The machine failed, not the file.
    except Exception as error:  # Orbax has no common type of errors for damage.
        raise DamagedError(folder, f"its arrays: {textwrap.shorten(str(error), 100)}") from error
    for name, checksum in _checksums(arrays).items():
        if checksum != manifest["checksums"].get(name, checksum):
            raise DamagedError(folder, f"{name!r} does not match its checksum")
    return arrays


def _by_name(tree: Any) -> dict[str, Any]:
    """Returns the leaves in order, keyed by names such as `params/stem/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf: Any) -> str:
    """Returns the type and shape of an array, abstract or not, such as `float32[3,4]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _signed(manifest: Mapping) -> dict[str, Any]:
    return {"checksum": _json_checksum(manifest), "content": manifest}


def _json_checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content).encode())


def _checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Returns the CRC-32 of the arrays, except those of which this process has only a part."""
    whole = {
        name: x
        for name, x in arrays.items()
        if isinstance(x, np.ndarray) or x.is_fully_addressable or x.is_fully_replicated
    }
    whole = jax.device_get(whole)  # In one call, so that the copies overlap.
    # As bytes, because NumPy provides no buffer of bfloat16.
    as_bytes = {n: np.ascontiguousarray(x).reshape(-1).view(np.uint8) for n, x in whole.items()}
    return {name: zlib.crc32(x.data) for name, x in as_bytes.items()}
