"""What the GPU benchmarks of JAX and PyTorch share: arrays, turns of timed calls, ceilings."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.shift import torch

if torch and "--rehearse" not in sys.argv and not torch.cuda.is_available():
    torch = None

DTYPE = jnp.bfloat16


def random(seed: int, shape, fan_in: int = 1):
    return jax.random.normal(jax.random.key(seed), shape, DTYPE) / math.sqrt(fan_in)


def nchw(array):
    """Returns a JAX array [B, H, W, C] as PyTorch's channels last, without a copy."""
    return torch.from_dlpack(array).permute(0, 3, 1, 2)


def oihw(array):
    """Returns a JAX kernel, (C, N) or [k, k, C, N], as PyTorch's."""
    kernel = torch.from_dlpack(array[None, None] if array.ndim == 2 else array)
    return kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def from_torch(y, *gradients):
    """Returns PyTorch's y, dx and dw in JAX's shapes."""
    results = [t.detach().permute(0, 2, 3, 1) for t in (y, *gradients[:1])]
    results += [t.permute(2, 3, 1, 0) for t in gradients[-1:]]
    return [jnp.from_dlpack(t.contiguous()) for t in results]


def wait(result) -> None:
    jax.block_until_ready(result)
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def medians(functions: dict, seconds: float, rounds: int = 15) -> dict:
    """Returns {name: median seconds of a call}; the functions take the number of the call.

    The functions take turns, for at least `rounds` rounds. A turn queues calls for about 20 ms and
    waits once.
    """
    calls, times, done = {}, {name: [] for name in functions}, Counter()
    for name, function in functions.items():
        for _ in range(2):  # The first call also fills caches.
            start = time.perf_counter()
            wait(function(0))
            once = time.perf_counter() - start
        calls[name] = max(1, min(200, int(0.02 / once)))
    end = time.perf_counter() + seconds * len(functions)
    while rounds > 0 or time.perf_counter() < end:
        rounds -= 1
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(calls[name]):
                result = function(done[name])
                done[name] += 1
            wait(result)
            times[name].append((time.perf_counter() - start) / calls[name])
    return {name: float(np.median(values)) for name, values in times.items()}


def measured_ceilings(rehearse: bool) -> dict:
    """Returns bytes/s of a copy, read and written, flop/s of a product, seconds of empty calls."""
    side, size = (256, 2**20) if rehearse else (8192, 2**29)
    x, a = random(0, (size,)), random(1, (side, side))
    # Negated, because XLA would return a plain copy's input.
    copy, product, nothing = jax.jit(jnp.negative), jax.jit(jnp.matmul), jnp.zeros(8)
    functions = {
        "bytes": lambda _: copy(x),
        "flops": lambda _: product(a, a),
        "jax_call": lambda _: copy(nothing),
    }
    if torch:
        zeros = nchw(nothing[None, None, None])
        functions["torch_call"] = lambda _: zeros.neg()
    found = medians(functions, 0.1 if rehearse else 1.0)
    return found | {"bytes": 4 * size / found["bytes"], "flops": 2 * side**3 / found["flops"]}


def attempt(name: str, notes: list, function, *args):
    """Returns function(*args), or None with a note on the failure."""
    try:
        return function(*args)
    except Exception as error:  # The failure of one competitor must not end the run.
        notes.append(f"{name}: {(str(error) or repr(error)).strip().splitlines()[0][:200]}")
        return None
