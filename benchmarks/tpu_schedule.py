"""What the TPU's compiler makes of the fused kernels, layer by layer and in whole networks.

    pip install libtpu
    python benchmarks/tpu_schedule.py layers [--model=shiftnet_a] [--chip=v5e] [--output=FILE.csv]
    python benchmarks/tpu_schedule.py networks [--model=shiftnet_a] [--chip=v5e]

An estimate of a compiler, not a measurement: nothing runs. Of each layer's forward pass and two
gradients it prints the longer one of two times, bytes / bandwidth and executed instruction
bundles / clock, beside the bound that no program can beat: the longer one of moving x, w and y
once and of the multiplications at the chip's peak. Of networks it prints the bytes accessed and
the temporary memory of the forward pass and of a training step: without the shifts, with depthwise
convolutions instead, with shifts by XLA and by the kernels.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.table import write_table
from benchmarks.tpu_compiler import CHIPS, compile_for, device, equations

import jax
import jax.numpy as jnp
from jax import lax

from shift_jax import create_model, ops
from shift_jax.models.registry import model_record
from shift_jax.ops.fused import api, pallas_tpu, xla

DTYPE = jnp.bfloat16
OPERATIONS = ("forward", "input_gradient", "weight_gradient")
NETWORKS = ("no shifts", "depthwise", "xla", "fused")


def network(name: str, batch: int):
    """Returns the model and the shapes of its variables and images."""
    model = create_model(name, dtype=DTYPE)
    x = jax.ShapeDtypeStruct((batch, *model_record(name).image_shape), DTYPE)
    with ops.implementation("xla"):
        one = jax.ShapeDtypeStruct((1, *x.shape[1:]), DTYPE)
        variables = jax.eval_shape(model.init, jax.random.key(0), one)
    return model, variables, x


def layers(name: str, batch: int):
    """Returns the different fused layers in a training step of the network, with their number."""
    model, variables, x = network(name, batch)
    apply = partial(model.apply, train=True, mutable=["batch_stats"])
    found = {}
    for equation in equations(jax.make_jaxpr(apply)(variables, x)):
        if equation.primitive.name == "shift_conv":
            static = equation.params["static"]
            shape, _, features = static.shapes([variable.aval for variable in equation.invars])
            if any(map(any, static.spec.offsets)):
                layer = (shape, features, static.spec)
                found[layer] = found.get(layer, 0) + 1
    return found


def program(module, operation: str, shape, features: int, spec, prologue: bool):
    """Returns one operation of an implementation, and the shapes of its arguments."""
    batch, height, width, channels = shape
    stride = spec.stride
    x = jax.ShapeDtypeStruct(shape, DTYPE)
    y = jax.ShapeDtypeStruct((batch, -(-height // stride), -(-width // stride), features), DTYPE)
    w = jax.ShapeDtypeStruct((channels, features), DTYPE)
    vector = jax.ShapeDtypeStruct((channels,), jnp.float32) if prologue else None
    function = partial(getattr(module, operation), spec=spec)
    if operation == "forward":
        return (lambda x, w, a, b: function(x, w, None, a, b, None)), (x, w, vector, vector)
    if operation == "input_gradient":
        function = partial(function, size=(height, width))
        return function, (y, w, x if prologue else None, vector, vector)
    return function, (x, y, vector, vector)


def bound(operation: str, arguments, results, chip) -> float:
    """Seconds that nothing beats: each argument and result moved once, or the products."""
    moved = jax.tree.leaves((arguments, results))
    product = {"forward": 1, "input_gradient": 1, "weight_gradient": 0}[operation]
    first, second = arguments[0], arguments[1]
    pixels = math.prod((second if operation == "weight_gradient" else results[0]).shape[:3])
    if operation == "input_gradient":
        pixels = math.prod(first.shape[:3])
    weights = arguments[product] if product else results
    flops = 2 * pixels * math.prod(weights.shape)
    return max(sum(a.size * a.dtype.itemsize for a in moved) / chip.bandwidth, flops / chip.flops)


def layer_table(flags) -> list[dict]:
    chip = CHIPS[flags.chip]
    schedules = Path(tempfile.mkdtemp(prefix="tpu_schedule_"))
    target = device(flags.chip, schedules)
    rows, shares = [], {}
    for (shape, features, spec), times in layers(flags.model, flags.batch).items():
        prologue = spec.prologue_relu
        for operation in OPERATIONS:
            function, arguments = program(pallas_tpu, operation, shape, features, spec, prologue)
            results = jax.eval_shape(function, *arguments)
            least = bound(operation, arguments, results, chip)
            fused = compile_for(target, function, *arguments, schedules=schedules)
            function, _ = program(xla, operation, shape, features, spec, prologue)
            plain = compile_for(target, function, *arguments)
            share = least / fused.seconds(chip)
            shares.setdefault(operation, []).append(share)
            row = {
                "x": "x".join(map(str, shape)),
                "features": features,
                "kernel_size": 1 + 2 * max(max(map(abs, offset)) for offset in spec.offsets),
                "stride": spec.stride,
                "layers": times,
                "operation": operation,
                "bytes_of_necessary": f"{fused.bytes_accessed / necessary(arguments, results):.3f}",
                "bound_us": f"{least * 1e6:.1f}",
                "fused_us": f"{fused.seconds(chip) * 1e6:.1f}",
                "fused_instructions_us": f"{fused.kernel_bundles / chip.clock * 1e6:.1f}",
                "bound_of_fused": f"{share:.2f}",
                "xla_us": f"{plain.seconds(chip) * 1e6:.1f}",
                "xla_bytes_of_necessary": f"{plain.bytes_accessed / necessary(arguments, results):.2f}",
                **origin(flags.chip),
            }
            rows.append(row)
            print("  ".join(map(str, list(row.values())[:13])), flush=True)
    for operation, values in shares.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"{operation}: bound / fused {mean:.2f} (geometric mean), {min(values):.2f} (least)")
    return rows


def necessary(arguments, results) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves((arguments, results)))


def origin(chip: str) -> dict:
    return {
        "device": f"TPU {chip}, compiled only",
        "jax": jax.__version__,
        "libtpu": version("libtpu"),
    }


def without_shifts(channels, *_):
    return ((0, 0),) * channels


def depthwise(x, offsets):
    """The shift as a depthwise convolution."""
    reach = max(max(map(abs, offset)) for offset in offsets)
    size, channels = 2 * reach + 1, len(offsets)
    kernel = jnp.zeros((size, size, 1, channels), x.dtype)
    for channel, (dy, dx) in enumerate(offsets):
        kernel = kernel.at[reach + dy, reach + dx, 0, channel].set(1)
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )


def variant(name: str) -> ExitStack:
    """A context in which networks are traced without shifts, with depthwise convolutions, …"""
    stack = ExitStack()
    if name != "fused":
        stack.enter_context(ops.implementation("xla"))
    if name == "no shifts":
        stack.enter_context(patch.object(api, "resolve_offsets", without_shifts))
    if name == "depthwise":
        stack.enter_context(patch.object(xla, "shift_by", depthwise))
    return stack


def network_table(flags) -> list[dict]:
    target = device(flags.chip)
    rows = []
    for training in (False, True):
        for name in NETWORKS:
            model, variables, x = network(flags.model, flags.batch)

            def forward(variables, x, model=model):
                return model.apply(variables, x)

            def step(variables, x, model=model):
                def loss(params):
                    y, new = model.apply(
                        {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
                    )
                    return jax.nn.logsumexp(y.astype(jnp.float32), -1).mean(), new

                return jax.value_and_grad(loss, has_aux=True)(variables["params"])

            with variant(name):
                compiled = compile_for(target, step if training else forward, variables, x)
            row = {
                "model": flags.model,
                "batch": flags.batch,
                "pass": "training" if training else "forward",
                "shifts": name,
                "gigabytes_accessed": f"{compiled.bytes_accessed / 1e9:.2f}",
                "temporary_gigabytes": f"{compiled.temporary_bytes / 1e9:.2f}",
                **origin(flags.chip),
            }
            rows.append(row)
            print("  ".join(map(str, list(row.values())[:6])), flush=True)
    return rows


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("layers", "networks"))
    parser.add_argument("--model", default="shiftnet_a", help="a registered name")
    parser.add_argument("--chip", default="v5e", choices=sorted(CHIPS))
    parser.add_argument("--batch", type=int, default=64, help="images on one device")
    parser.add_argument("--output", type=Path, help="where the table is written as CSV")
    flags = parser.parse_args(argv)
    rows = layer_table(flags) if flags.table == "layers" else network_table(flags)
    if flags.output:
        write_table(flags.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
