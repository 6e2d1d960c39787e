"""Tests run on the CPU, with eight simulated devices for what concerns several."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real datasets beside the checkout, where there is one."""
    if not SHARED_DATA.exists():
        pytest.skip("the real datasets (../shared/data beside the checkout) are not here")
    return SHARED_DATA
