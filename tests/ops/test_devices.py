"""What a shift is lowered to, for which platform and on how many devices."""

import math
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from shift_jax.ops import batch_axes, shift, shift_conv, shift_offsets
from tests.ops.test_shift import random


def lowered_for(platform, shape, sharding=None):
    """Returns the program of a shift and its gradient, lowered for a platform."""
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)
    traced = jax.jit(lambda x: jax.vjp(shift, x)[1](shift(x))).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("platform", "gathers"), [("tpu", False), ("cpu", True), ("cuda", True)])
def test_the_platform_lowered_for_chooses_the_formulation(platform, gathers):
    assert ("stablehlo.gather" in lowered_for(platform, (1, 4, 4, 36))) == gathers


@pytest.mark.parametrize(("platform", "block"), [("cpu", 1), ("cuda", 4)])
def test_a_gpu_loads_four_channels_at_once(platform, block):
    text = lowered_for(platform, (1, 4, 4, 36))
    assert set(re.findall(r"slice_sizes = array<i64: 1, (\d)>", text)) == {str(block)}
    assert "slice_sizes = array<i64: 1, 1>" in lowered_for(platform, (1, 4, 4, 35))


BATCHING = "operand_batching_dims"  # XLA writes an array of indices for it, see `_gather`.


def mesh_of(**axes):
    return Mesh(np.asarray(jax.devices()).reshape(*axes.values()), tuple(axes))


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_indices_are_computed_and_not_written(platform):
    whole, split = (16, 6, 5, 36), PartitionSpec("data")
    assert BATCHING not in lowered_for(platform, whole)
    assert BATCHING not in lowered_for(platform, (2, *whole))
    devices = mesh_of(data=8)
    assert BATCHING not in lowered_for(platform, whole, NamedSharding(devices, split))
    devices = mesh_of(data=4, fsdp=2)
    with batch_axes("data"):
        assert BATCHING not in lowered_for(platform, whole, NamedSharding(devices, split))
    # Nothing says which axes split the batch, or it has no equal parts.
    assert BATCHING in lowered_for(platform, whole, NamedSharding(devices, split))
    odd = NamedSharding(mesh_of(data=8), PartitionSpec())
    assert BATCHING in lowered_for(platform, (9, *whole[1:]), odd)


def test_the_axes_named_reach_the_shifts_inside_a_shift_conv():
    split = NamedSharding(mesh_of(data=4, fsdp=2), PartitionSpec(("data", "fsdp")))

    def gradients(x, w):
        with batch_axes("data", "fsdp"):
            return jax.grad(lambda x, w: shift_conv(x, w).sum(), (0, 1))(x, w)

    x = jax.ShapeDtypeStruct((16, 6, 5, 36), jnp.bfloat16, sharding=split)
    w = jax.ShapeDtypeStruct((36, 8), jnp.bfloat16)
    text = jax.jit(gradients).trace(x, w).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.gather" in text and BATCHING not in text


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_lowered_constants_are_tables_of_rows_and_columns(platform):
    text = lowered_for(platform, (2, 16, 16, 36))
    constants = re.findall(r"stablehlo.constant dense<.*> : tensor<([\dx]+)x[a-z0-9]+>", text)
    assert constants
    assert max(math.prod(map(int, size.split("x"))) for size in constants) <= 16 * 36


def test_shifts_of_a_network_share_no_array_of_indices():
    def network(x, w):
        for _ in range(3):
            x = shift_conv(x, w, relu=True)
        return x.sum()

    x, w = jnp.zeros((8, 6, 6, 20)), jnp.zeros((20, 20))
    text = jax.jit(jax.grad(network, (0, 1))).lower(x, w).compile().as_text()
    assert " gather(" in text
    assert not re.search(r"s32\[8,6,6,\d+(,\d+)?\]\S* fusion\(", text)


@pytest.mark.parametrize("shape", [(10_000, 256, 256, 36), (1, 2**14, 2**14, 36)])
def test_indices_that_would_not_fit_into_int32_count_less(shape):
    text = lowered_for("cuda", shape)
    assert (BATCHING in text) == (shape[0] > 1)
    assert ("stablehlo.gather" in text) == (shape[0] > 1)


@pytest.mark.parametrize("axes", [{"data": 8}, {"data": 4, "fsdp": 2}])
def test_a_sharded_batch_stays_where_it_is(axes):
    names = tuple(axes)
    split = NamedSharding(mesh_of(**axes), PartitionSpec(names))
    x = random((16, 5, 6, 20))

    def gradient(x, dy):
        return jax.vjp(shift, x)[1](dy)[0]

    with batch_axes(*names):
        function = jax.jit(gradient, in_shardings=split, out_shardings=split)
        compiled = function.lower(x, x).compile()
    text = compiled.as_text()
    assert not re.search(r"all-(gather|reduce|to-all)|collective-permute", text)
    y = compiled(*jax.device_put((x, x), split))
    np.testing.assert_array_equal(y, shift(x, offsets=-shift_offsets(20)))


@pytest.mark.parametrize("axis_names", [{"data"}, {"data", "fsdp"}])
def test_inside_shard_map(axis_names):
    split, x = PartitionSpec("data"), random((16, 5, 6, 20))
    mesh = mesh_of(data=4, fsdp=2)
    function = jax.shard_map(
        shift, mesh=mesh, in_specs=split, out_specs=split, axis_names=axis_names
    )
    np.testing.assert_array_equal(jax.jit(function)(x), shift(x))


def test_explicit_sharding_and_open_batches():
    x = random((16, 5, 6, 20))
    with jax.set_mesh(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Explicit,))):
        y = jax.jit(shift)(jax.device_put(x, PartitionSpec("data")))
    np.testing.assert_array_equal(y, shift(x))
    shape = jax.export.symbolic_shape("b,5,6,20")
    exported = jax.export.export(jax.jit(shift))(jax.ShapeDtypeStruct(shape, x.dtype))
    np.testing.assert_array_equal(exported.call(x), shift(x))
