"""What the TPU's own compiler makes of the kernels, on a machine without a TPU.

pip install libtpu
pytest -m slow tests/ops/fused/tpu/test_compiler.py
"""

import re
from functools import cache, partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from benchmarks.tpu_compiler import CHIPS, compile_for, device
from shift_jax.layers import CSC
from shift_jax.ops import shift_conv
from shift_jax.ops.fused import tpu
from tests.ops.fused.networks import OPERATIONS, layers, program

pytest.importorskip("libtpu", reason="the TPU's compiler, `pip install libtpu`, is not here")
pytestmark = pytest.mark.slow

# Those that compute, move or hold nothing of their own.
FREE = {"parameter", "bitcast", "tuple", "get-tuple-element", "constant", "custom-call"}
KERNELS = {
    "forward": "shift_conv",
    "input_gradient": "shift_conv_input_gradient",
    "weight_gradient": "shift_conv_weight_gradient",
}


def shiftnet_a() -> dict:
    return {
        f"{size[0]}-{size[2]}-{features}-s{spec.stride}": ((64, *size), features, spec)
        for *size, features, spec in layers("shiftnet_a")
    }


@cache
def compiled(chip: str, name: str, operation: str):
    shape, features, spec = shiftnet_a()[name]
    function, arguments = program(tpu, operation, shape, features, spec, spec.prologue_relu)
    return compile_for(device(chip), function, *arguments).text


def instructions(text: str):
    """Yields the opcode, the elements of the largest result and the line of each instruction.

    Those inside fusions too.
    """
    for line in text.splitlines():
        found = re.match(r"\s*(?:ROOT )?%?[\w.-]+ = (\(.*?\)|\S+) ([\w-]+)\(", line)
        if found:
            shapes = re.findall(r"\w+\[([\d,]*)\]", found[1])
            sizes = [prod(map(int, filter(None, shape.split(",")))) for shape in shapes]
            yield found[2], max(sizes, default=0), line


def kernels_in(text: str) -> list[str]:
    """The names of the kernels' calls, without numbers."""
    return [
        re.match(r"\s*(?:ROOT )?%?([a-z_]+)", line)[1]
        for opcode, _, line in instructions(text)
        if opcode == "custom-call" and "tpu_custom_call" in line
    ]


@pytest.mark.parametrize("chip", ["v5e", "v4", "v6e"])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", shiftnet_a())
def test_compiles_to_one_kernel(name, operation, chip):
    assert kernels_in(compiled(chip, name, operation)) == [KERNELS[operation]]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", shiftnet_a())
def test_only_the_kernel_touches_a_whole_image(name, operation):
    shape, features, spec = shiftnet_a()[name]
    pixels = prod(shape[:3]) // spec.stride**2
    least = min(prod(shape), pixels * features)
    for opcode, size, line in instructions(compiled("v5e", name, operation)):
        assert opcode in FREE or size < least, line


def sharded(function, *args):
    """The program for a mesh of four v5e; the batch of the first argument is split."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS["v5e"].topology)
    mesh = Mesh(np.asarray(topology.devices), ("data",))
    shardings = [
        NamedSharding(mesh, PartitionSpec("data") if i == 0 else PartitionSpec())
        for i in range(len(args))
    ]
    return jax.jit(function, in_shardings=shardings).trace(*args).lower().compile().as_text()


def test_a_sharded_batch_runs_the_kernels_where_it_is():
    shape, features, _ = shiftnet_a()["14-512-256-s1"]
    x = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    w = jax.ShapeDtypeStruct((shape[3], features), jnp.bfloat16)
    scale = jax.ShapeDtypeStruct((shape[3],), jnp.float32)

    def forward(x, w, scale):
        return shift_conv(x, w, prologue_scale=scale, prologue_relu=True, relu=True)

    def loss(*arguments):
        return jnp.square(forward(*arguments).astype(jnp.float32)).mean()

    text = sharded(forward, x, w, scale)
    assert kernels_in(text) == [KERNELS["forward"]]
    assert "all-gather" not in text and "all-to-all" not in text and "all-reduce" not in text
    text = sharded(jax.grad(loss, argnums=(0, 1, 2)), x, w, scale)
    assert sorted(kernels_in(text)) == sorted(KERNELS.values())
    assert "all-gather" not in text and "all-to-all" not in text
    # A batch of 64 on four devices: each has a sum of its own over 16 images.
    reduced = [line for opcode, _, line in instructions(text) if opcode.startswith("all-reduce")]
    assert any(f"[{shape[3]},{features}]" in line for line in reduced)


def test_nothing_is_copied_between_a_kernel_and_its_neighbors():
    """Two CSC modules, forward: the kernels take and give what lies in memory anyway."""
    target = device("v5e")
    modules = [CSC(256, expansion=1, dtype=jnp.bfloat16) for _ in range(2)]
    x = jax.ShapeDtypeStruct((64, 14, 14, 256), jnp.bfloat16)
    variables = [
        jax.eval_shape(partial(module.init, train=False), jax.random.key(0), x)
        for module in modules
    ]

    def network(variables, x):
        for module, some in zip(modules, variables, strict=True):
            x = module.apply(some, x, train=False)
        return x

    layout = Format(Layout.AUTO, SingleDeviceSharding(target))
    function = jax.jit(network, in_shardings=layout, out_shardings=layout)
    text = function.trace(variables, x).lower().compile().as_text()
    assert kernels_in(text) == [KERNELS["forward"]] * 2
    for opcode, size, line in instructions(text):
        if size >= prod(x.shape):
            assert opcode not in ("copy", "copy-start", "transpose"), line
