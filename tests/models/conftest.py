import pytest


@pytest.fixture(autouse=True)
def strict(strict_jax):
    """Everything here must pass in strict projects too."""
