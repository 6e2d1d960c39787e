"""What the TPU's compiler makes of the fused kernels, layer by layer and in whole networks.

    pip install libtpu
    python benchmarks/tpu_schedule.py layers [--model=shiftnet_a] [--chip=v5e] [--xla]
    python benchmarks/tpu_schedule.py networks [--model=shiftnet_a] [--chip=v5e]

All figures are a compiler's estimates, not measurements: nothing runs. `layers` covers each module
at inference, and the forward pass and the two gradients of its second convolution in training. It
prints the longest of three times (bytes / bandwidth, executed instruction bundles / clock, products
/ peak) beside a bound that no program can beat: moving the necessary bytes once, and computing the
products. `networks` prints the bytes accessed and the temporary memory at inference and in a
training step, without the shifts, with depthwise convolutions instead, and with shifts by XLA and
by the kernels.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[1]))
import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.table import write_table
from benchmarks.tpu_compiler import CHIPS, compile_for, device, equations
from shift_jax import create_model, ops
from shift_jax.models.registry import model_record
from shift_jax.ops.fused import api, tpu, xla
from shift_jax.ops.fused.operands import Operands

DTYPE = jnp.bfloat16
NETWORKS = ("no shifts", "depthwise", "xla", "fused")


def network(name: str, batch: int):
    """Returns the model and the shapes of its variables and images."""
    model = create_model(name, dtype=DTYPE)
    x = jax.ShapeDtypeStruct((batch, *model_record(name).image_shape), DTYPE)
    with ops.implementation("xla"):
        one = jax.ShapeDtypeStruct((1, *x.shape[1:]), DTYPE)
        variables = jax.eval_shape(model.init, jax.random.key(0), one)
    return model, variables, x


def layers(name: str, batch: int, training: bool = True):
    """Returns how often the network has each of its different fused layers.

    A layer is the static half of a call and the shapes of its arguments.
    """
    model, variables, x = network(name, batch)
    apply = partial(model.apply, train=training, mutable=["batch_stats"] if training else False)
    found = {}
    for equation in equations(jax.make_jaxpr(apply)(variables, x)):
        if equation.primitive.name == "shift_conv":
            static = equation.params["static"]
            if any(map(any, static.spec.offsets)):
                shapes = tuple((v.aval.shape, v.aval.dtype) for v in equation.invars)
                found[static, shapes] = found.get((static, shapes), 0) + 1
    return {
        (static, tuple(jax.ShapeDtypeStruct(*each) for each in shapes)): times
        for (static, shapes), times in found.items()
    }


class Job(NamedTuple):
    """One operation of one layer.

    Attributes:
      operation: "inference" means both convolutions of a module, "forward" the second one in
        training.
      run: function of a backend's module and the operands.
      operands: their shapes.
      moved_bytes: that any program has to read and write.
      flops: that any program has to do.
    """

    operation: str
    run: Callable
    operands: Operands
    moved_bytes: int
    flops: int


def jobs(static, leaves, training: bool) -> list[Job]:
    """Returns the operations of a layer: one without training, three with."""
    shape, _, _ = static.shapes(leaves)
    spec = static.spec
    operands = static.operands(leaves)
    x, w, expand = operands.x, operands.w, operands.expand
    (y,) = jax.eval_shape(partial(static.run, "xla"), *leaves)[:1]
    product = 2 * math.prod(y.shape) * shape[3]

    def forward(module, operands):
        return module.forward(operands, spec=spec)

    if not training:
        first = 0 if expand is None else 2 * math.prod(x.shape) * shape[3]
        # The residual is x.
        return [Job("inference", forward, operands, nbytes(x, w, expand, y), product + first)]
    dy = jax.ShapeDtypeStruct((shape[0], *y.shape[1:]), DTYPE)
    inner = replace(spec, statistics=False)

    def input_gradient(module, operands):
        return module.input_gradient(operands, spec=inner, size=shape[1:3])

    def weight_gradient(module, operands):
        return module.weight_gradient(operands, spec=inner)

    with_dy = replace(operands, bias=None, dy=dy)
    dw = jax.ShapeDtypeStruct(w.shape, jnp.float32)
    return [
        Job("forward", forward, operands, nbytes(x, w, y), product),
        # The derivative of the ReLU before the shift needs x again.
        Job("input_gradient", input_gradient, with_dy, nbytes(dy, w, x, x), product),
        Job(
            "weight_gradient",
            weight_gradient,
            replace(with_dy, w=None),
            nbytes(x, dy, dw),
            product,
        ),
    ]


def nbytes(*arrays) -> int:
    return sum(a.size * a.dtype.itemsize for a in arrays if a is not None)


def layer_table(flags) -> list[dict]:
    chip = CHIPS[flags.chip]
    schedules = Path(tempfile.mkdtemp(prefix="tpu_schedule_"))
    target = device(flags.chip, schedules)
    rows, shares = [], {}
    for training in (False, True):
        for (static, leaves), times in layers(flags.model, flags.batch, training).items():
            shape, _, features = static.shapes(leaves)
            for job in jobs(static, leaves, training):
                fused = compile_for(
                    target, partial(job.run, tpu), job.operands, schedules=schedules
                )
                products = job.flops / chip.flops
                bound = max(job.moved_bytes / chip.bandwidth, products)
                # A bundle with a long delay is one bundle of several cycles.
                seconds = max(fused.seconds(chip), products)
                share = bound / seconds
                shares.setdefault(job.operation, []).append(share)
                row = {
                    "shifted": "x".join(map(str, shape)),
                    "features": features,
                    "kernel_size": 1 + 2 * max(max(map(abs, o)) for o in static.spec.offsets),
                    "stride": static.spec.stride,
                    "layers": times,
                    "operation": job.operation,
                    "bytes_of_necessary": f"{fused.bytes_accessed / job.moved_bytes:.3f}",
                    "bound_us": f"{bound * 1e6:.1f}",
                    "fused_us": f"{seconds * 1e6:.1f}",
                    "fused_instructions_us": f"{fused.kernel_bundles / chip.clock * 1e6:.1f}",
                    "bound_of_fused": f"{share:.2f}",
                }
                if flags.xla:
                    plain = compile_for(target, partial(job.run, xla), job.operands)
                    row["xla_us"] = f"{plain.seconds(chip) * 1e6:.1f}"
                    row["xla_bytes_of_necessary"] = f"{plain.bytes_accessed / job.moved_bytes:.2f}"
                rows.append(row | origin(flags.chip))
                print("  ".join(map(str, row.values())), flush=True)
    for operation, values in shares.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        print(f"{operation}: bound / fused {mean:.2f} (geometric mean), {min(values):.2f} (least)")
    return rows


def origin(chip: str) -> dict:
    return {
        "device": f"TPU {chip}, compiled only",
        "jax": jax.__version__,
        "libtpu": version("libtpu"),
    }


def without_shifts(channels, *_):
    return ((0, 0),) * channels


def depthwise(x, offsets):
    """Computes the shift as a depthwise convolution."""
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
    """Returns a context that traces networks without shifts, with depthwise convolutions, …"""
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
                "pass": "training step" if training else "inference",
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
    parser.add_argument(
        "--xla", action="store_true", help="also compile layers by XLA; minutes each"
    )
    parser.add_argument("--output", type=Path, help="the CSV to write")
    flags = parser.parse_args(argv)
    rows = layer_table(flags) if flags.table == "layers" else network_table(flags)
    if flags.output:
        write_table(flags.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
