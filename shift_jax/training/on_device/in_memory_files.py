"""What training in memory leaves on the disk: its state while it runs, a run when it is done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from shift_jax.config import flatten
from shift_jax.errors import InputError
from shift_jax.files import replaced_file
from shift_jax.training.on_device.arrays import is_damage
from shift_jax.training.runs.history import History
from shift_jax.training.runs.workdir import claim_workdir

if TYPE_CHECKING:
    from shift_jax.training.on_device.in_memory_run import Trained


def save_state(path: Path, arrays: Any, facts: dict) -> None:
    """Writes a pytree of arrays and JSON-able facts; `path` is the old file or the whole new one.

    Args:
      path: of an .npz file; its folder is made if needed.
      arrays: pytree of arrays, PRNG keys among them perhaps.
      facts: what else is needed to go on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in _by_name(arrays).items()
    }
    with replaced_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, facts=np.asarray(json.dumps(facts)), **jax.device_get(named))


def load_state(path: Path, identity: dict, template: Any) -> tuple[Any, dict] | None:
    """Returns the arrays and the facts of a file, or None where there is none.

    A damaged file is moved aside, with a warning: what it holds begins again.

    Args:
      path: of the file.
      identity: what the facts must have as their "identity".
      template: pytree like the one saved.

    Raises:
      InputError: the file has another identity.
    """
    leaves = _by_name(template)
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            _check_identity(path, facts["identity"], json.loads(json.dumps(identity)))
            found = {name: file[name] for name in leaves}
    except FileNotFoundError:
        return None
    except InputError:  # Which is a ValueError.
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        damaged = path.with_name(path.name + ".damaged")
        path.rename(damaged)
        logging.warning(
            "%s is damaged (%s) and was moved to %s; its training begins again.",
            *(path, error, damaged),
        )
        return None
    restored = [
        jax.random.wrap_key_data(found[name]) if _is_key(leaf) else jnp.array(found[name])
        for name, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), restored), facts


def _check_identity(path: Path, theirs: dict, ours: dict) -> None:
    theirs, ours = flatten(theirs), flatten(ours)
    for key in sorted(theirs.keys() | ours.keys()):
        if theirs.get(key) != ours.get(key):
            raise InputError(
                f"{path} is of another training ({key} is {theirs.get(key)!r} there and "
                f"{ours.get(key)!r} here): choose another --workdir, or delete that file."
            )


def write_run(workdir: Path, run: Trained) -> None:
    """Makes `workdir` the folder of a finished run, which `eval.py` takes; of no other one.

    Its history has one line of training for each epoch, where the trainer's has one for each step.

    Raises:
      InputError: the folder belongs to another config, or cannot be written.
    """
    # Here, because Orbax takes seconds to import.
    from shift_jax.training.runs.checkpoints import Checkpoints

    last_step = int(run.state.step)
    claim_workdir(workdir, run.config)
    history = History(workdir, 0)
    for number, epoch in enumerate(run.epochs, start=1):
        step = last_step * number // len(run.epochs)
        history.add(step, "train", loss=epoch.loss, top1=epoch.train_top1)
        history.add(step, "eval", split=run.config["data"]["eval_split"], **epoch.test)
    history.flush()
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        # Of the same training perhaps, perhaps of an earlier one with other code or images.
        for step in checkpoints.steps():
            checkpoints.delete(step)
        state, metrics = run.state, run.epochs[-1].test
        checkpoints.save(last_step, state, config=run.config, metrics=metrics)


def _by_name(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
