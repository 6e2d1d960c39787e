"""Edge cases and layers as parameters of the tests that every backend inherits."""

import pytest

from tests.ops.fused.cases import EDGES, small_layers


def pytest_generate_tests(metafunc):
    """Edge cases and layers, of which each backend has some in the everyday run."""
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
