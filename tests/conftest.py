"""Tests run on the CPU, with eight simulated devices for what concerns several."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
if version("jaxlib").startswith("0.12.0"):
    # Its CPU fusions of bfloat16 convolutions are wrong, up to NaN (README, Training).
    os.environ["XLA_FLAGS"] += " --xla_cpu_experimental_ynn_fusion_type="
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many tests compile the same train step. The workers and the command lines that tests start
    # inherit the folder; it lasts as long as the run.
    _compiled = tempfile.TemporaryDirectory(prefix="shift_jax_tests_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import jax
import pytest

from tests import shape_checks

shape_checks.install()

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def strict_jax():
    """Makes JAX refuse implicit rank promotion and NaNs, as many people's projects do."""
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        yield


@pytest.fixture
def shared_data() -> Path:
    """The folder of real datasets beside the checkout, where there is one."""
    if not SHARED_DATA.exists():
        pytest.skip("the real datasets (../shared/data beside the checkout) are not here")
    return SHARED_DATA
