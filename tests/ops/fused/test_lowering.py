from functools import partial

import jax
import jax.export
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shift_jax.errors import InputError
from shift_jax.ops import batch_axes, shift_conv
from tests.ops.fused.arguments import ARGUMENTS, arrays, assert_trees_close, loss


def sharded_gradients(mesh, spec, **options):
    """The compiled gradients on `mesh`, x and residual sharded as `spec`, and the arguments."""
    batch, whole = NamedSharding(mesh, spec), NamedSharding(mesh, PartitionSpec())
    shardings = {key: batch if key in ("x", "residual") else whole for key in ARGUMENTS}
    arguments = jax.device_put(arrays(16), shardings)
    function = jax.jit(
        jax.grad(partial(loss, **options)), in_shardings=(shardings,), out_shardings=shardings
    )
    return function.lower(arguments).compile(), arguments


@pytest.mark.parametrize("name", [None, "pallas_tpu"])
def test_a_sharded_batch_stays_where_it_is(kernel, table, name):
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    compiled, arguments = sharded_gradients(mesh, PartitionSpec("data"), implementation=name)
    assert kernel.ran
    assert_trees_close(
        compiled(arguments), jax.grad(partial(loss, implementation="xla"))(arrays(16))
    )
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    assert "all-reduce" in text


def test_a_mesh_of_several_axes_is_left_to_xla_unless_named(kernel, table):
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "model"))
    sharded_gradients(mesh, PartitionSpec("data"))
    assert not kernel.ran
    compiled, arguments = sharded_gradients(
        mesh, PartitionSpec("data"), implementation="pallas_tpu"
    )
    assert kernel.ran
    assert_trees_close(compiled(arguments), jax.grad(loss)(arrays(16)))


def test_a_mesh_of_several_axes_has_kernels_where_the_batch_is_said_to_lie(kernel, table):
    mesh = Mesh(np.asarray(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    both = PartitionSpec(("data", "fsdp"))
    with batch_axes("data", "fsdp"):
        compiled, arguments = sharded_gradients(mesh, both)
    assert kernel.ran
    assert_trees_close(compiled(arguments), jax.grad(loss)(arrays(16)))
    text = compiled.as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    with batch_axes("data"):
        compiled, arguments = sharded_gradients(mesh, PartitionSpec("data"))
    assert_trees_close(compiled(arguments), jax.grad(loss)(arrays(16)))
    with batch_axes("datta"), pytest.raises(InputError, match="the mesh has no axis 'datta'"):
        sharded_gradients(mesh, both, implementation="pallas_tpu")


def test_a_batch_that_does_not_split_is_left_to_xla_or_refused_by_name(kernel, table):
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    whole = NamedSharding(mesh, PartitionSpec())
    x, w = jax.device_put((arrays(9)["x"], arrays()["w"]), whole)
    jax.jit(shift_conv)(x, w)
    assert not kernel.ran
    with pytest.raises(InputError, match="a batch of 9 cannot be split over 8 devices"):
        jax.jit(partial(shift_conv, implementation="pallas_tpu"))(x, w)


@pytest.mark.parametrize("name", [None, "pallas_tpu"])
@pytest.mark.parametrize("check_vma", [False, True])
def test_inside_shard_map_a_kernel_sees_its_own_part(kernel, name, check_vma):
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    spec = {
        key: PartitionSpec("data") if key in ("x", "residual") else PartitionSpec()
        for key in ARGUMENTS
    }

    @partial(jax.shard_map, mesh=mesh, in_specs=(spec,), out_specs=spec, check_vma=check_vma)
    def gradients(arguments):
        def whole_loss(arguments):
            y = loss(arguments, implementation=name, statistics=False)
            return jax.lax.psum(y, "data") if check_vma else y

        own = jax.grad(whole_loss)(arguments)
        if check_vma:
            return own
        return {k: g if k in ("x", "residual") else jax.lax.psum(g, "data") for k, g in own.items()}

    expected = jax.grad(partial(loss, statistics=False))(arrays(16))
    assert_trees_close(jax.jit(gradients)(arrays(16)), expected)
    assert bool(kernel.ran) == (name is not None)
