"""What chooses the implementation of a `shift_conv`, and that every choice is the same function."""

import subprocess
import sys
import types
from functools import partial
from typing import get_args

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shift_jax.errors import InputError
from shift_jax.ops import batch_axes, implementation, shift_conv
from shift_jax.ops.fused import call, choices, xla
from shift_jax.ops.fused.backends import KERNELS
from shift_jax.ops.fused.spec import Operation, Spec

ARGUMENTS = ("x", "w", "bias", "prologue_scale", "prologue_bias", "residual")


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def arrays(batch=8, dtype=jnp.float32):
    return {
        "x": random(batch, 5, 4, 20, dtype=dtype),
        "w": random(20, 6, seed=1, dtype=dtype),
        "bias": random(6, seed=2),
        "prologue_scale": random(20, seed=3),
        "prologue_bias": random(20, seed=4),
        "residual": random(batch, 3, 2, 6, seed=5, dtype=dtype),
    }


def loss(arguments, implementation=None, **options):
    """Depends on every output; `arguments` are differentiated."""
    options = {"prologue_relu": True, "relu": True, "statistics": True, "stride": 2, **options}
    out = shift_conv(**arguments, implementation=implementation, **options)
    # The sums are large: without the weights the sine would have no digit left.
    weights = [1, 0.01, 0.001]
    return sum(
        jnp.sum(jnp.sin(leaf.astype(jnp.float32) * weight))
        for leaf, weight in zip(jax.tree.leaves(out), weights, strict=False)
    )


def assert_trees_close(actual, expected, tolerance=1e-5):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance * 10), actual, expected
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


# --- the name, the context and the table -------------------------------------------------------


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


# --- the derivative ----------------------------------------------------------------------------

OPTIONS = [
    {},
    {"relu": False},
    {"relu": False, "relu_before_residual": True},
    {"statistics": False, "prologue_relu": False},
    {"statistics": False, "relu": False, "relu_before_residual": True},
]
MISSING = [("bias", "prologue_bias"), ("prologue_scale",), ("residual",), ARGUMENTS[2:]]


@pytest.mark.parametrize(
    ("options", "missing"),
    [*((options, ()) for options in OPTIONS), *(({}, missing) for missing in MISSING)],
)
def test_gradients_equal_the_natural_ones(options, missing):
    arguments = {key: value for key, value in arrays(2).items() if key not in missing}
    value, gradients = jax.jit(jax.value_and_grad(partial(loss, **options)))(arguments)
    natural = jax.jit(jax.value_and_grad(partial(loss, implementation="xla", **options)))
    assert_trees_close((value, gradients), natural(arguments))


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2]])
def test_bfloat16_gradients_have_the_types_of_the_arguments(options):
    arguments = arrays(2, jnp.bfloat16) | {
        "w": arrays()["w"],
        "bias": random(6, dtype=jnp.bfloat16),
    }
    options = {**options, "statistics": False}
    gradients = jax.grad(partial(loss, **options))(arguments)
    assert jax.tree.map(lambda a: a.dtype, gradients) == jax.tree.map(lambda a: a.dtype, arguments)
    arguments = arrays(2, jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), arguments)
    gradients = jax.grad(partial(loss, **options))(arguments)
    for key, expected in jax.grad(partial(loss, **options))(wide).items():
        error = np.linalg.norm(np.asarray(gradients[key], np.float32) - expected)
        assert error < 0.05 * np.linalg.norm(expected), key


def test_a_large_residual_does_not_hide_the_sign_of_the_relu():
    x, w = jnp.full((1, 1, 1, 1), 2**-4, jnp.bfloat16), jnp.ones((1, 1), jnp.bfloat16)
    residual = jnp.full((1, 1, 1, 1), 1024, jnp.bfloat16)

    def output(x):
        y = shift_conv(x, w, kernel_size=1, residual=residual, relu_before_residual=True)
        return y.astype(jnp.float32).sum()

    assert output(x) == 1024
    assert jax.grad(output)(x).item() == 1
    assert jax.grad(output)(-x).item() == 0


def test_gradients_of_gradients_and_forward_derivatives_of_them():
    arguments = arrays(1)

    def curvature(implementation, arguments):
        of_loss = jax.grad(partial(loss, implementation=implementation))
        return jax.grad(lambda a: sum(jnp.sum(g**2) for g in jax.tree.leaves(of_loss(a))))(
            arguments
        )

    def directional(implementation, arguments):
        of_loss = jax.grad(partial(loss, implementation=implementation))
        return jax.jvp(of_loss, (arguments,), (arguments,))[1]

    for function in (curvature, directional):
        expected = jax.jit(partial(function, "xla"))(arguments)
        actual = jax.jit(partial(function, None))(arguments)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()),
            actual,
            expected,
        )


def test_forward_mode_needs_xla():
    x, w = arrays()["x"], arrays()["w"]
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: shift_conv(x, w), (x,), (x,))
    with implementation("xla"):
        y, dy = jax.jvp(lambda x: shift_conv(x, w), (x,), (x,))
    np.testing.assert_allclose(y, dy, rtol=1e-5)


# --- transformations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mapped", "statistics"),
    [
        (None, ("x",), False),
        (None, ("w",), True),
        ("pallas_tpu", ("x", "residual"), False),
        ("pallas_tpu", ("residual",), True),
        ("pallas_tpu", ("prologue_scale",), False),
    ],
)
def test_vmap_equals_a_loop(kernel, name, mapped, statistics):
    arguments = arrays(2)
    axes = {key: 1 if key in mapped else None for key in arguments}
    for seed, key in enumerate(mapped):
        arguments[key] = jnp.stack([arguments[key], arguments[key] * (2 + seed)], axis=1)
    function = jax.value_and_grad(partial(loss, implementation=name, statistics=statistics))
    actual = jax.jit(jax.vmap(function, (axes,)))(arguments)
    one_by_one = [
        jax.jit(function)({k: v[:, i] if k in mapped else v for k, v in arguments.items()})
        for i in range(2)
    ]
    assert_trees_close(actual, jax.tree.map(lambda *a: jnp.stack(a), *one_by_one))


def test_vmap_of_images_is_one_larger_batch(kernel):
    x, w = arrays()["x"], arrays()["w"]
    function = jax.vmap(lambda x: shift_conv(x, w, implementation="pallas_tpu"))
    text = str(jax.make_jaxpr(function)(x[:, None]))
    assert "scan" not in text and "f32[8,5,4,6] = shift_conv" in text


def test_remat_and_scan(kernel):
    arguments = arrays(2)
    ws = jnp.stack([random(20, 20, seed=s) / 9 for s in range(3)])

    def chain(ws, remat, name):
        def block(x, w):
            return shift_conv(x, w, relu=True, implementation=name), None

        y, _ = jax.lax.scan(jax.checkpoint(block) if remat else block, arguments["x"], ws)
        return jnp.sum(jnp.sin(y))

    expected = jax.grad(partial(chain, remat=False, name="xla"))(ws)
    assert_trees_close(jax.grad(partial(chain, remat=True, name="pallas_tpu"))(ws), expected)


# --- several devices ---------------------------------------------------------------------------


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
