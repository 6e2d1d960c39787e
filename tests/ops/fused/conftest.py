"""Parameters of the tests that every backend inherits, and a kernel that notes when it runs."""

import sys
import types
from typing import get_args

import pytest

from shift_jax.ops.fused import call, choices, xla
from shift_jax.ops.fused.spec import Operation
from tests.ops.fused.cases import EDGES, small_layers


def pytest_generate_tests(metafunc):
    """Marks the edge cases and layers that are not in a backend's everyday run as slow."""
    cls = metafunc.cls

    def marks(everyday: bool):
        return () if everyday else pytest.mark.slow

    if "edge" in metafunc.fixturenames:
        everyday = EDGES if cls.everyday_edges is None else cls.everyday_edges
        metafunc.parametrize(
            "edge", [pytest.param(name, marks=marks(name in everyday)) for name in EDGES]
        )
    if "small_layer" in metafunc.fixturenames:
        count = len(small_layers()) if cls.everyday_layers is None else cls.everyday_layers
        metafunc.parametrize(
            "small_layer",
            [
                pytest.param(case, id=key, marks=marks(i < count))
                for i, (key, case) in enumerate(small_layers().items())
            ],
        )


@pytest.fixture
def kernel(monkeypatch):
    """XLA's functions in the place of a kernel, which note in `ran` what was lowered."""
    fake = types.ModuleType("fake")
    fake.ran, fake.why_not = [], None

    def function(name):
        def run(operands, interpret=None, **options):
            del interpret
            fake.ran.append(name)
            return getattr(xla, name)(operands, **options)

        return run

    for name in get_args(Operation):
        setattr(fake, name, function(name))
    fake.unsupported = lambda *shape: fake.why_not
    monkeypatch.setitem(sys.modules, "shift_jax.ops.fused.tpu", fake)
    # A value of its own, so that nothing is found in jit's caches that another test left there.
    with call.INTERPRET(fake):
        yield fake


@pytest.fixture
def table(monkeypatch):
    """A table in which the kernel is the fastest everywhere on the CPU."""
    row = {"device_kind": "cpu", "dtype": "float32", "implementation": "pallas_tpu"}
    rows = [{**row, "operation": name} for name in get_args(Operation)]
    monkeypatch.setattr(choices, "_rows", lambda: rows)
    return rows
