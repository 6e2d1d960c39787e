"""Compiles the formulations of shift + pointwise convolution for a TPU v5e, without one.

    pip install libtpu
    python benchmarks/shift_tpu_aot.py [--quick] [--output=FILE.csv]

For each compiled program it prints the bytes accessed relative to the necessary ones (each operand
read once, each result written once), the bytes of temporary memory relative to x, and the
compiler's own estimate of the cycles. Nothing runs, so no time here is measured. The bytes count an
operand of a fusion once, even if the fusion reads it k² times from the TPU's main memory; the
estimated cycles count every read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # There is no TPU host to ask.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.formulations import SHAPES, SHIFTS, candidates, training_step
from benchmarks.table import write_table
from shift_jax.ops import shift_conv

BATCH = 64
DTYPE = jnp.bfloat16


def compiled_numbers(function, *args):
    """Returns (bytes accessed, temporary bytes, estimated cycles) of the compiled program."""
    compiled = jax.jit(function).lower(*args).compile()
    cycles = re.findall(r'"estimated_cycles":"(\d+)"', compiled.as_text())
    return (
        compiled.cost_analysis()["bytes accessed"],
        compiled.memory_analysis().temp_size_in_bytes,
        sum(map(int, cycles)),
    )


def programs(shape, order, part, training):
    """Returns {name: function} of one group of rows, and the number of necessary values."""
    offsets = shape.offsets(order)
    # These lose by a factor of ten or more and are the slowest to compile.
    slow = ("updates", "selects_of_rolled", "advanced_index", "slices_of_padded")
    if order == "interleaved":  # Runs of one channel.
        slow += ("slices_concatenated", "sum_of_directions")
    if training:
        slow += ("gather", "sum_of_directions")
    pixels = BATCH * shape.side**2
    if part == "shift":
        # Forward only: the rows with the product show what the gradient costs.
        found = {
            name: lambda x, f=f: f(x, offsets) for name, f in SHIFTS.items() if name not in slow
        }
        found["copy"] = jnp.negative
        return found, pixels * 2 * shape.channels
    found = candidates(offsets, training)
    found = {name: f for name, f in found.items() if not name.startswith(slow)}
    found["pointwise alone"] = jnp.matmul
    found["library"] = lambda x, w: shift_conv(x, w, kernel_size=shape.kernel_size, order=order)
    if training:
        found = {name: training_step(f) for name, f in found.items()}
        # Reads x and the cotangent, writes the output and the gradient of x.
        return found, pixels * 2 * (shape.channels + shape.features)
    return found, pixels * (shape.channels + shape.features)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes of the three")
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results / "shift_tpu_v5e_compiled.csv")
    flags = parser.parse_args(argv)
    try:
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    except Exception as error:
        if "libtpu" not in str(error) and "tpu" not in str(error).lower():
            raise
        print("The TPU's compiler is missing: `pip install libtpu` and run this again.")
        return 2
    device = SingleDeviceSharding(topology.devices[0])

    def spec(*shape):
        return jax.ShapeDtypeStruct(shape, DTYPE, sharding=device)

    rows = []
    # The largest of each network, and one more with k = 3.
    shapes = (SHAPES[0], SHAPES[3]) if flags.quick else (SHAPES[0], SHAPES[3], SHAPES[5])
    parts = (("shift", False), ("shift+pointwise", False), ("shift+pointwise", True))
    for shape, order, (part, training) in product(shapes, ("grouped", "interleaved"), parts):
        x = spec(BATCH, shape.side, shape.side, shape.channels)
        w = spec(shape.channels, shape.features)
        cotangent = spec(*x.shape[:-1], shape.features)
        args = (x,) if part == "shift" else (cotangent, x, w) if training else (x, w)
        functions, values = programs(shape, order, part, training)
        for name, function in functions.items():
            accessed, temporary, cycles = compiled_numbers(function, *args)
            row = {
                "network": shape.network,
                "shape": "x".join(map(str, x.shape)),
                "features": shape.features,
                "kernel_size": shape.kernel_size,
                "order": order,
                "part": part,
                "pass": "training" if training else "forward",
                "formulation": name,
                "bytes_accessed_of_necessary": f"{accessed / (2 * values):.2f}",
                "temporary_bytes_of_x": f"{temporary / (2 * x.size):.2f}",
                "estimated_kilocycles": f"{cycles / 1e3:.0f}",
                "device": "TPU v5e, compiled only",
                "jax": jax.__version__,
                "libtpu": version("libtpu"),
            }
            rows.append(row)
            print("  ".join(map(str, list(row.values())[1:11])), flush=True)
    write_table(flags.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
