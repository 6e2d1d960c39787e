"""Times the formulations of the learned shift on this CPU.

    python benchmarks/learned_shifts.py [--output=FILE.csv]

All functions of one row run in turns, each on one core. Each number is the least CPU time, divided
by that of one pass over the tensor, as other work on the machine does not count in it. "forward and
backward" means the output and the gradients of images and offsets.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import partial
from pathlib import Path

if hasattr(os, "sched_setaffinity"):  # Before JAX counts the cores.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.shift import machine
from benchmarks.table import write_table
from shift_jax.ops import active_shift, shift
from shift_jax.ops.taps import AT, BETWEEN, _gathers, _moves

SHAPES = {"AS-ResNet-w32": [(56, 32), (28, 64), (14, 128), (7, 256)], "AS-ResNet-CIFAR": [(32, 16)]}
BATCH = 32
GATHERS = partial(_gathers, on_cpu=True)
_RADIUS = 3


def halves(offsets):
    starts = jnp.floor(lax.stop_gradient(offsets)).astype(jnp.int32)
    return starts, offsets - starts


def whole(formulation, x, offsets):
    return formulation(x, *halves(offsets), stride=1, kinds=(BETWEEN, BETWEEN), dtype=x.dtype)


def rows_then_columns(x, offsets):
    """Two gathers for the rows, two for the columns."""
    for kinds, keep in (((BETWEEN, AT), (1, 0)), ((AT, BETWEEN), (0, 1))):
        starts, fractions = halves(offsets * np.float32([keep]))
        moved = GATHERS(x, starts, fractions, stride=1, kinds=kinds, dtype=x.dtype)
        x = lax.optimization_barrier(moved)
    return x


def hats(x, offsets):
    """Moves the tensor by each whole distance up to a radius, weighted by how near it is."""
    for axis in range(2):
        margins = [(0, 0)] * 4
        margins[axis + 1] = (_RADIUS, _RADIUS)
        padded, size = jnp.pad(x, margins), x.shape[axis + 1]
        total = jnp.zeros_like(x)
        for d in range(-_RADIUS, _RADIUS + 1):
            weight = jnp.maximum(0, 1 - jnp.abs(offsets[:, axis] - d))
            total += weight * lax.slice_in_dim(padded, _RADIUS + d, _RADIUS + d + size, 1, axis + 1)
        x = lax.optimization_barrier(total)
    return x


def channel_by_channel(x, offsets):
    """Slices the image of each channel, one after the other."""
    (starts, fractions), (_, height, width, _) = halves(offsets), x.shape
    margin = (_RADIUS + 1, _RADIUS + 1)
    planes = jnp.pad(jnp.moveaxis(x, -1, 0), [(0, 0), (0, 0), margin, margin])

    def one(channel):
        plane, start, (down, right) = channel
        sizes = (len(plane), height + 1, width + 1)
        cut = lax.dynamic_slice(plane, (0, *(start + _RADIUS + 1)), sizes)
        cut = (1 - down) * cut[:, :-1] + down * cut[:, 1:]
        return (1 - right) * cut[..., :-1] + right * cut[..., 1:]

    return jnp.moveaxis(lax.map(one, (planes, starts, fractions)), 0, -1)


FORMULATIONS = {
    "four gathers": partial(whole, GATHERS),
    "moves": partial(whole, _moves),
    "rows, then columns, by gathers": rows_then_columns,
    f"hats within {_RADIUS}": hats,
    "channel by channel": channel_by_channel,
}


def step(function):
    def both(x, offsets):
        y, pullback = jax.vjp(function, x, offsets)
        return y, *pullback(y)

    return both


def least(functions, *operands, repeats=9):
    compiled = {name: jax.jit(f).lower(*operands).compile() for name, f in functions.items()}
    times = {name: [] for name in compiled}
    for _ in range(repeats):
        for name, function in compiled.items():
            jax.block_until_ready(function(*operands))
            start = time.process_time()
            jax.block_until_ready(function(*operands))
            times[name].append(time.process_time() - start)
    return {name: min(found) for name, found in times.items()}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    results = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results / "learned_shifts_cpu.csv")
    flags = parser.parse_args(argv)
    rng, rows = np.random.default_rng(0), []
    for network, (side, channels) in ((n, s) for n, shapes in SHAPES.items() for s in shapes):
        x = jnp.asarray(rng.normal(size=(BATCH, side, side, channels)), jnp.float32)
        offsets = jnp.asarray(rng.normal(size=(channels, 2)) * 0.9, jnp.float32)
        table = np.round(offsets).astype(int)
        expected = FORMULATIONS["four gathers"](x, offsets)
        for name, function in FORMULATIONS.items():
            np.testing.assert_allclose(function(x, offsets), expected, atol=1e-5, err_msg=name)
        one_pass = {"pass": lambda x, offsets: -x}
        fixed = {"shift": lambda x, offsets, table=table: shift(x, offsets=table)}
        # Autodiff scatters: the moves' loop of unknown length has no reverse mode at all.
        derived = {n: step(f) for n, f in FORMULATIONS.items() if n != "moves"}
        forward = least({**one_pass, **FORMULATIONS, **fixed}, x, offsets)
        backward = least({**one_pass, "library": step(active_shift), **derived}, x, offsets)
        for kind, times in (("forward", forward), ("forward and backward", backward)):
            base = times.pop("pass")
            shape = "x".join(map(str, x.shape))
            row = {"network": network, "shape": shape, "pass": kind}
            row |= {"pass_ms": f"{base * 1e3:.2f}"}
            row |= {name: f"{seconds / base:.1f}" for name, seconds in times.items()}
            print(row, flush=True)
            rows.append(row | machine())
    write_table(flags.output, rows)


if __name__ == "__main__":
    main()
