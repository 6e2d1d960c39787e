"""What `import shift_jax` offers, and that it costs nothing until it is used."""

import ast
import inspect
import subprocess
import sys

import pytest

import shift_jax


def test_importing_the_package_imports_neither_jax_nor_flax():
    code = (
        "import sys, shift_jax; dir(shift_jax); shift_jax.__version__; "
        "print(*sorted({'jax', 'jaxlib', 'flax', 'numpy'} & set(sys.modules))); "
        "shift_jax.shift; print(*sorted({'jax', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "jax"]


def test_every_public_name_is_there_and_listed():
    assert sorted(shift_jax.__all__) == dir(shift_jax)
    for name in shift_jax.__all__:
        assert getattr(shift_jax, name) is not None


def test_type_checkers_see_the_names_that_are_loaded_on_first_use():
    tree = ast.parse(inspect.getsource(shift_jax))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        name.name: node.module.removeprefix("shift_jax.")
        for node in block.body
        for name in node.names
    }
    assert imported == shift_jax._ROOMS
    assert {*imported, "__version__"} == set(shift_jax.__all__)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'shift_jax' has no attribute 'shfit'"):
        _ = shift_jax.shfit
