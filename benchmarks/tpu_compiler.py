"""The TPU's compiler on a machine without a TPU, and what it says about a program."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # There is no TPU host to ask.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # Nor a TPU to compete for.

import jax
from jax.experimental import topologies
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding

jax.config.update("jax_platforms", "cpu")


@dataclass(frozen=True)
class Chip:
    """What JAX calls one device.

    Attributes:
      topology: the smallest one with this chip.
      bandwidth: of its memory, bytes/s.
      flops: peak of bfloat16 products with float32 sums, 1/s.
      clock: of its cores, Hz.
      cores: how many of them one kernel can use.
    """

    topology: str
    bandwidth: float
    flops: float
    clock: float
    cores: int = 1


# Bandwidths, peaks and v5e's clock as published; other clocks are peak / (2 · multipliers).
CHIPS = {
    "v4": Chip("v4:2x2x1", 1228e9, 275e12, 1.05e9, cores=2),
    "v5e": Chip("v5e:2x2", 819e9, 197e12, 1.5e9),
    "v5p": Chip("v5p:2x2x1", 2765e9, 459e12, 1.75e9, cores=2),
    "v6e": Chip("v6e:2x2", 1640e9, 918e12, 1.75e9),
}


def device(chip: str, schedules: Path | None = None) -> jax.Device:
    """Returns a device of that kind to compile for; exits if the compiler is missing.

    Args:
      chip: a key of `CHIPS`.
      schedules: an empty directory for the schedules of kernels. The compiler reads the setting
        when it is loaded, so the first call decides.
    """
    if schedules:
        options = (f"dump_to={schedules}", "dump_llo_text=true", "dump_hlo_text=true")
        os.environ["LIBTPU_INIT_ARGS"] = " ".join(f"--xla_jf_{option}" for option in options)
    if importlib.util.find_spec("libtpu") is None:
        print("The TPU's compiler is missing: `pip install libtpu` and run this again.")
        sys.exit(2)
    topology = topologies.get_topology_desc(platform="tpu", topology_name=CHIPS[chip].topology)
    return topology.devices[0]


@dataclass(frozen=True)
class Program:
    """What the compiler says about a program.

    Attributes:
      text: of the compiled program.
      bytes_accessed: a kernel counts what it declares; an operand of a fusion counts once, even if
        the fusion reads it repeatedly.
      temporary_bytes: of memory.
      estimated_cycles: of XLA's own operations; kernels have none.
      kernel_bundles: instruction bundles that the kernel executes, about one per cycle; 0 without
        schedules.
    """

    text: str
    bytes_accessed: float
    temporary_bytes: int
    estimated_cycles: int
    kernel_bundles: int

    def seconds(self, chip: Chip) -> float:
        """Returns the longer time of moving the bytes and executing the instructions."""
        executed = (self.estimated_cycles + self.kernel_bundles) / chip.clock
        return max(self.bytes_accessed / chip.bandwidth, executed)


def compile_for(target: jax.Device, function, *args, schedules: Path | None = None) -> Program:
    """Compiles function(*args) for the device; `args` are trees of shapes.

    With `schedules`, the directory given to `device`, the function may have one kernel.
    """
    # The compiler chooses the layouts of arguments and results, as in the middle of a network.
    layout = Format(Layout.AUTO, SingleDeviceSharding(target))
    for path in schedules.iterdir() if schedules else ():
        path.unlink()
    traced = jax.jit(function, in_shardings=layout, out_shardings=layout).trace(*args)
    compiled = traced.lower().compile()
    text = compiled.as_text()
    calls = pallas_calls(traced.jaxpr)
    return Program(
        text,
        compiled.cost_analysis()["bytes accessed"],
        compiled.memory_analysis().temp_size_in_bytes,
        sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text))),
        sum(_executed_bundles(call, schedules) for call in calls) if schedules else 0,
    )


def equations(jaxpr):
    """Yields the equations of a jaxpr and of all jaxprs inside it, except inside kernels."""
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield equation
        if equation.primitive.name == "pallas_call":
            continue
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
        ):
            if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
                yield from equations(value)


def pallas_calls(jaxpr) -> list:
    """Returns the equations of all kernels."""
    return [found for found in equations(jaxpr) if found.primitive.name == "pallas_call"]


def _executed_bundles(equation, schedules: Path) -> int:
    """Counts the bundles of the final schedule; those inside loops count once for each trip.

    The outer loop is the grid. The inner ones zero the ring and the sums in the first step of each
    core, a row at a time. Blocks that only some steps execute count in all of them.
    """
    grid, name = equation.params["grid_mapping"].grid, equation.params["name"]
    (schedule,) = (
        path
        for path in schedules.glob(f"*-{name}.*-final_bundles.txt")
        if "schedule-analysis" not in path.name
    )
    depths = [0, 0, 0]
    for line in schedule.read_text().splitlines():
        bundle = re.match(r"\s*(?:0x[0-9a-f]+|0)\s+(?:[A-Z]{2})?\s*:\s*((?:> ?)*)\s*\{", line)
        if bundle:
            depths[min(bundle[1].count(">"), 2)] += 1
    scratch = equation.params["grid_mapping"].num_scratch_operands
    ring = equation.params["jaxpr"].invars[-scratch]
    rows = ring.aval.shape[0]
    return depths[0] + depths[1] * prod(grid) + depths[2] * rows * grid[0]
