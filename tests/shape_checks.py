"""Checks, wherever a test calls them, the shapes that ops, layers, counting and models promise."""

import importlib
import sys
import typing
from contextlib import contextmanager

import jax
import numpy as np
from beartype import beartype
from jaxtyping import install_import_hook

ROOMS = ("shift_jax.ops", "shift_jax.layers", "shift_jax.counting", "shift_jax.models")


class _RealAnnotations:
    """Finds modules for jaxtyping's hook and runs them with the imports of their annotations.

    Those are behind TYPE_CHECKING, so that users need no jaxtyping.
    """

    def __init__(self, hook):
        self._hook = hook

    def find_spec(self, name, path=None, target=None):
        spec = self._hook.find_spec(name, path, target)
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                with _annotations():
                    run(module)

            spec.loader.exec_module = exec_module
        return spec


@contextmanager
def _annotations():
    """Lets modules import what they annotate with; NumPy's arrays do for jax.Array, as in JAX."""
    before = typing.TYPE_CHECKING, jax.Array
    typing.TYPE_CHECKING, jax.Array = True, jax.Array | np.ndarray
    try:
        yield
    finally:
        typing.TYPE_CHECKING, jax.Array = before


def check_arrays(function):
    """Lets beartype check the shapes of arrays, and no other annotation.

    jaxtyping calls this twice: for what checks the arguments alone before a call, and for what
    checks arguments and result after it. The first has nothing to check, since a function may
    refuse wrong arguments itself.
    """
    hints = function.__annotations__ or {}
    # Dataclasses that are pytrees hold what JAX maps arrays to as well.
    if hints.get("return") is typing.Any or function.__name__ == "__init__":
        return function
    shapes = {name: hint for name, hint in hints.items() if "Array, " in str(hint)}
    function.__annotations__ = shapes
    return beartype(function)


def install() -> None:
    """Begins to check; must come before the first import of the rooms."""
    assert not [name for name in sys.modules if name.startswith(ROOMS)]
    # First what the rooms import, whose own TYPE_CHECKING must stay False.
    for name in ("flax.linen", "jax.experimental.pallas.tpu", "shift_jax.data"):
        importlib.import_module(name)
    install_import_hook(ROOMS, f"{__name__}.check_arrays")
    sys.meta_path[0] = _RealAnnotations(sys.meta_path[0])
