"""What chooses the implementation of a `shift_conv`."""

import subprocess
import sys
from typing import get_args

import jax
import jax.export
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.ops import implementation, shift_conv
from shift_jax.ops.fused import choices
from shift_jax.ops.fused.backends import KERNELS
from shift_jax.ops.fused.spec import Operation, Spec
from tests.ops.fused.arguments import arrays, assert_trees_close, loss, random


def test_the_context_changes_what_runs_even_in_a_function_that_jit_knows(kernel):
    function = jax.jit(shift_conv)
    x, w = arrays()["x"], arrays()["w"]
    expected = function(x, w)
    assert not kernel.ran
    with implementation("pallas_tpu"):
        np.testing.assert_array_equal(function(x, w), expected)
        assert kernel.ran == ["forward"]
    function(x, w)
    assert kernel.ran == ["forward"]


def test_the_context_goes_before_the_argument_and_nests(kernel):
    def ran(argument):
        kernel.ran.clear()
        jax.jit(lambda x, w: shift_conv(x, w, implementation=argument)).lower(
            arrays()["x"], arrays()["w"]
        )
        return bool(kernel.ran)

    with implementation("xla"):
        assert not ran("pallas_tpu")
        with implementation("pallas_tpu"):
            assert ran("xla") and ran(None)
        assert not ran("pallas_tpu")
        with implementation(None):
            assert ran("pallas_tpu") and not ran(None)
    assert ran("pallas_tpu")


def test_an_unknown_name_is_refused_at_once():
    with pytest.raises(InputError, match="implementation is 'pallas', .*Did you mean 'pallas_"):
        implementation("pallas")


@pytest.mark.parametrize(
    ("name", "devices"), [("pallas_tpu", "TPUs"), ("pallas_gpu", "NVIDIA GPUs")]
)
def test_a_kernel_by_name_refuses_other_platforms(name, devices):
    with pytest.raises(InputError, match=f"'{name}' runs on {devices} only.* for cpu: use None or"):
        shift_conv(random(1, 4, 4, 9), random(9, 5), implementation=name)


def test_what_a_kernel_cannot_do_is_left_to_xla_or_refused_by_name(kernel, table):
    x, w = arrays()["x"], arrays()["w"]
    kernel.why_not = "The kernel takes multiples of 8 channels, not 20."
    with pytest.raises(InputError, match="takes multiples of 8 channels, not 20"):
        shift_conv(x, w, implementation="pallas_tpu")
    shift_conv(x, w)
    assert not kernel.ran


def test_the_table_chooses_for_the_device_of_the_computation(kernel, table):
    jax.jit(jax.grad(loss)).lower(arrays())
    assert sorted(set(kernel.ran)) == ["forward", "input_gradient", "weight_gradient"]
    kernel.ran.clear()
    table[:] = [{**table[0], "device_kind": "TPU v5 lite"}]
    jax.jit(jax.grad(loss)).lower(arrays())
    assert not kernel.ran


def test_rows_of_the_table(monkeypatch):
    row = {"device_kind": "A", "operation": "forward", "dtype": "bfloat16"}
    row |= {"min_channels": 64, "max_height": 28, "batch_multiple": 16}
    later = {**row, "min_channels": 8, "implementation": "pallas_gpu"}
    rows = [{**row, "implementation": "pallas_tpu"}, later]
    monkeypatch.setattr(choices, "_rows", lambda: rows)
    moving, still = Spec(((0, 1),) * 64), Spec(((0, 0),) * 64)

    def choose(
        kind="A", operation="forward", shape=(32, 28, 56, 64), dtype="bfloat16", spec=moving
    ):
        return choices.choose(kind, operation, shape, dtype, 100, spec)

    assert choose() == "pallas_tpu"
    assert choose(shape=(32, 28, 56, 63)) == "pallas_gpu"
    for other in (
        {"kind": "B"},
        {"operation": "weight_gradient"},
        {"dtype": "float32"},
        {"shape": (32, 29, 56, 64)},
        {"shape": (24, 28, 56, 64)},
        {"shape": (32, 28, 56, 7)},
        {"spec": still},
    ):
        assert choose(**other) == "xla"


def test_the_table_that_is_shipped_can_be_read():
    for row in choices._rows():
        assert row["operation"] in get_args(Operation) and row["implementation"] in KERNELS


@pytest.mark.parametrize("platforms", [["cpu"], ["tpu"], ["cuda"], ["cpu", "tpu"]])
def test_exports_for_any_platform(platforms):
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays())
    exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=platforms)(shapes)
    if "cpu" in platforms:
        pytest.importorskip("flatbuffers")
        again = jax.export.deserialize(exported.serialize())
        assert_trees_close(again.call(arrays()), jax.grad(loss)(arrays()))


def test_importing_the_ops_imports_no_kernel():
    code = (
        "import sys, shift_jax.ops; "
        "print(*(m for m in sys.modules if m.startswith(('shift_jax.ops.fused.tpu', "
        "'shift_jax.ops.fused.gpu', 'jax.experimental.pallas'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
