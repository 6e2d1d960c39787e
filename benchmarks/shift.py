"""Times the shift and shift + pointwise convolution beside what they replace, on this device.

    python benchmarks/shift.py [--quick] [--formulations] [--output=FILE.csv]

All functions of one row run in turns. The row has the shortest time of each, divided by that of a
copy of the tensor. Other work on the machine only adds time, most of all to functions that wait for
all of their threads, so the shortest time is the most accurate.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.formulations import (
    FUSED,
    SHAPES,
    SHIFTS,
    convolution,
    training_step,
    with_adjoint,
)
from benchmarks.table import write_table
from shift_jax.ops import shift, shift_conv

try:
    import torch
except ImportError:
    torch = None

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str]:
    """Returns the columns that describe the machine, without host names and paths."""
    model = platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((li.split(": ")[1] for li in lines if li.startswith("model name")), model)
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ""),
        "jax": jax.__version__,
        "torch": torch.__version__ if torch else "",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def shortest(functions, repeats, seconds_each):
    """Returns {name: shortest seconds}; a function whose time is used up sits out the rest.

    Each timed call follows an untimed one of the same function, which fills its caches and lets the
    threads of another function stop spinning, as PyTorch's do for a while.
    """
    times = {name: [] for name in functions}
    for _ in range(repeats):
        for name, f in functions.items():
            if sum(times[name]) > seconds_each / 2 and len(times[name]) >= 3:
                continue
            f()
            start = time.perf_counter()
            f()
            times[name].append(time.perf_counter() - start)
    return {name: min(t) for name, t in times.items()}


def bound(function, training, *args):
    """Compiles the forward pass, or forward and backward; returns a call that waits for it."""
    if training:
        cotangent = jnp.ones_like(jax.eval_shape(function, *args))
        function, args = training_step(function), (cotangent, *args)
    compiled = jax.jit(function).lower(*args).compile()
    return lambda: jax.block_until_ready(compiled(*args))


def torch_depthwise(shape, batch, training):
    """Returns PyTorch's depthwise + pointwise convolution, channels last, one thread per core."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    c, k = shape.channels, shape.kernel_size
    net = torch.nn.Sequential(
        torch.nn.Conv2d(c, c, k, padding=k // 2, groups=c, bias=False),
        torch.nn.Conv2d(c, shape.features, 1, bias=False),
    ).to(memory_format=torch.channels_last)
    x = torch.randn(batch, c, shape.side, shape.side).to(memory_format=torch.channels_last)
    if not training:

        def forward():
            with torch.inference_mode():
                net(x)

        return forward
    x.requires_grad_(True)

    def step():
        y = net(x)
        torch.autograd.grad(y, [x, *net.parameters()], torch.ones_like(y))

    return step


def networks(shape, order, training, x, w):
    """Returns the functions of one row of the main table."""
    c, k = shape.channels, shape.kernel_size
    depthwise = jnp.ones((k, k, 1, c), x.dtype)
    dense = jnp.ones((3, 3, c, shape.features), x.dtype)
    found = {
        "shift": bound(lambda x: shift(x, k, order=order), training, x),
        "pointwise": bound(jnp.matmul, training, x, w),
        "shift+pointwise": bound(
            lambda x, w: shift_conv(x, w, kernel_size=k, order=order), training, x, w
        ),
        "depthwise+pointwise": bound(
            lambda x, d, w: convolution(x, d, groups=c) @ w, training, x, depthwise, w
        ),
        "conv3x3": bound(convolution, training, x, dense),
    }
    if torch and x.dtype == jnp.float32:
        found["torch depthwise+pointwise"] = torch_depthwise(shape, len(x), training)
    return found


def formulations(shape, order, training, x, w):
    """Returns the functions of one row of `--formulations`."""
    offsets = shape.offsets(order)
    found = {}
    # Their derivatives compile for minutes, some of them only if each run is a single channel.
    slow = ("updates", "selects_of_rolled") if training else ()
    if training and order == "interleaved":
        slow += ("slices_concatenated", "slices_of_padded_concatenated", "sum_of_directions")
    for name, f in SHIFTS.items():
        if name in slow:
            continue
        if training:
            found[f"{name}, natural"] = bound(lambda x, f=f: f(x, offsets), True, x)
            f = with_adjoint(f)
            name = f"{name}, adjoint"
        found[name] = bound(lambda x, f=f: f(x, offsets), training, x)
    for name, f in FUSED.items():
        if name not in slow:
            label = f"{name} (with product)"
            found[label] = bound(lambda x, w, f=f: f(x, w, offsets), training, x, w)
    return found


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats of three shapes")
    parser.add_argument("--formulations", action="store_true", help="compare formulations")
    parser.add_argument("--output", type=Path, help="the CSV to write, default by device")
    flags = parser.parse_args(argv)
    accelerator = jax.default_backend() != "cpu"
    dtype = jnp.bfloat16 if accelerator else jnp.float32
    columns_of = formulations if flags.formulations else networks
    name = f"shift{'_formulations' if flags.formulations else ''}_{jax.default_backend()}.csv"
    output = flags.output or RESULTS / name
    here = machine()
    rows = []
    print(" ".join(f"{key}={value}" for key, value in here.items()))
    # There are many formulations; some are hundreds of times slower.
    few = flags.quick or flags.formulations
    for shape in SHAPES[::3] if few else SHAPES:
        batch = 64 if accelerator else 128 if shape.network.startswith("ShiftResNet") else 8
        x_shape = (batch, shape.side, shape.side, shape.channels)
        x = jax.random.normal(jax.random.key(0), x_shape, dtype)
        w = jnp.ones((shape.channels, shape.features), dtype)
        for order in ("grouped", "interleaved"):
            for training in (False, True):
                # Negated, because XLA would return a plain copy's input.
                functions = {"copy": bound(jnp.negative, training, x)}
                functions |= columns_of(shape, order, training, x, w)
                limit = 1.0 if flags.formulations else 3.0
                seconds = shortest(functions, 3 if flags.quick else 25, limit)
                copy = seconds.pop("copy")
                row = {
                    "network": shape.network,
                    "shape": "x".join(map(str, x_shape)),
                    "features": shape.features,
                    "kernel_size": shape.kernel_size,
                    "order": order,
                    "pass": "training" if training else "forward",
                    "dtype": np.dtype(dtype).name,
                    "copy_ms": f"{copy * 1e3:.3f}",
                }
                row |= {key: f"{value / copy:.2f}" for key, value in seconds.items()}
                rows.append(row | here)
                print(
                    f"{row['shape']:>16} k={shape.kernel_size} {order:11} {row['pass']:8} "
                    f"copy {row['copy_ms']} ms; times the copy: "
                    + "  ".join(f"{key} {row[key]}" for key in seconds),
                    flush=True,
                )
    write_table(output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
