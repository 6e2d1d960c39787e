"""One layer: the fused kernels, XLA, and convolutions in JAX and PyTorch, checked and timed."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.formulations import training_step
from benchmarks.gpu_timing import (
    DTYPE,
    attempt,
    from_torch,
    measured_ceilings,
    medians,
    nchw,
    oihw,
    random,
    torch,
)
from shift_jax import create_model, ops
from shift_jax.layers import ShiftConv
from shift_jax.models.registry import model_record

# Of the largest value: two bfloat16 roundings are a quarter of it.
TOLERANCE = 2**-6


class Layer(NamedTuple):
    """One shift and pointwise convolution."""

    height: int
    width: int
    channels: int
    features: int
    kernel_size: int
    stride: int

    def shape(self, batch: int, out: bool = False) -> tuple[int, ...]:
        if not out:
            return batch, self.height, self.width, self.channels
        return batch, -(-self.height // self.stride), -(-self.width // self.stride), self.features

    def bound(self, batch: int, ceilings: dict) -> float:
        """Returns seconds that no pass beats: to move its arrays once, or for its products."""
        x, y = math.prod(self.shape(batch)), math.prod(self.shape(batch, out=True))
        moved = 2 * (x + y + self.channels * self.features)
        return max(moved / ceilings["bytes"], 2 * y * self.channels / ceilings["flops"])


def layers(name: str) -> Counter:
    """Returns how often the network has each of its different layers that shift."""
    found = Counter()

    def note(function, args, kwargs, context):
        conv = context.module
        if isinstance(conv, ShiftConv) and context.method_name == "__call__":
            size = (*args[0].shape[1:], conv.features, conv.kernel_size, conv.stride)
            found[Layer(*size)] += conv.kernel_size > 1
        return function(*args, **kwargs)

    image = jax.ShapeDtypeStruct((1, *model_record(name).image_shape), DTYPE)
    with nn.intercept_methods(note), ops.implementation("xla"):
        jax.eval_shape(create_model(name).init, jax.random.key(0), image)
    return +found


def convolution(x, kernel, stride: int, groups: int = 1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(size // 2, size // 2) for size in kernel.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def jax_functions(layer: Layer) -> dict:
    """Returns {name: (family, function of x and the family's weights)}."""
    s, c = layer.stride, layer.channels
    shifted = partial(ops.shift_conv, kernel_size=layer.kernel_size, stride=s)
    return {
        "pallas_gpu": ("shift", partial(shifted, implementation="pallas_gpu")),
        "library": ("shift", shifted),
        "xla shift+dot": ("shift", partial(shifted, implementation="xla")),
        "jax depthwise+1x1": ("depthwise", lambda x, d, w: convolution(x, d, s, c) @ w),
        "jax conv3x3": ("conv3x3", lambda x, w: convolution(x, w, s)),
        "jax 1x1": ("1x1", lambda x, w: x[:, ::s, ::s] @ w),
    }


def torch_functions(layer: Layer, backend: str) -> dict:
    """Returns the same for NCHW tensors in channels last, eager and compiled."""
    conv, s, k, c = torch.nn.functional.conv2d, layer.stride, layer.kernel_size, layer.channels
    eager = {
        "depthwise+1x1": (
            "depthwise",
            lambda x, d, w: conv(conv(x, d, stride=s, padding=k // 2, groups=c), w),
        ),
        "conv3x3": ("conv3x3", lambda x, w: conv(x, w, stride=s, padding=1)),
        "1x1": ("1x1", lambda x, w: conv(x, w, stride=s)),
    }
    compiled = partial(torch.compile, dynamic=False, backend=backend)
    found = {f"torch {name}": value for name, value in eager.items()}
    return found | {f"torch.compile {n}": (of, compiled(f)) for n, (of, f) in eager.items()}


def weights(layer: Layer, seed: int, *, as_shift: bool) -> dict:
    """Returns the arguments of each family after x; the depthwise kernel is a shift or random."""
    k, c, n = layer.kernel_size, layer.channels, layer.features
    w = random(seed, (c, n), c)
    depthwise = random(seed + 1, (k, k, 1, c), k * k)
    if as_shift:
        dy, dx = np.asarray(ops.shift_offsets(c, k)).T + k // 2
        depthwise = jnp.zeros_like(depthwise).at[dy, dx, 0, np.arange(c)].set(1)
    dense = random(seed + 2, (3, 3, c, n), 9 * c)
    return {"shift": (w,), "depthwise": (depthwise, w), "conv3x3": (dense,), "1x1": (w,)}


def checked(name: str, result, expected, notes: list) -> bool:
    """Returns whether y, dx and dw are the expected ones; otherwise it adds a note."""
    for part, a, b in zip(("y", "dx", "dw"), result, expected, strict=False):
        a, b = a.reshape(b.shape).astype(jnp.float32), b.astype(jnp.float32)
        error = float(jnp.abs(a - b).max() / jnp.abs(b).max())
        if not error <= TOLERANCE:
            notes.append(f"{name}: not timed, {part} is wrong by {error:.3g} of its largest value")
            return False
    return True


def layer_row(layer: Layer, training: bool, ceilings: dict, flags, seed: int):
    """Returns {name: seconds} and the notes."""
    x_shape, y_shape = layer.shape(flags.batch), layer.shape(flags.batch, out=True)
    copies = max(2, -(-flags.rotate * 2**20 // (2 * math.prod(x_shape))))
    inputs = [(random(seed + 9 * i, x_shape), random(~seed - i, y_shape)) for i in range(copies)]
    functions, notes, expected = {}, [], {}
    exact, timed = (weights(layer, seed + 2, as_shift=flag) for flag in (True, False))

    def compare(name, family, result):
        # The depthwise kernel shifts, so both families have the same result, XLA's.
        key = "shift" if family == "depthwise" else family
        return checked(name, result, expected[key], notes)

    def add_jax(name, family, function):
        step = jax.jit(training_step(function) if training else lambda g, *args: function(*args))

        def run(i, weights=timed):
            x, g = inputs[i % len(inputs)]
            return step(g, x, *weights[family])

        result = run(0, exact)
        y, gradients = result if training else (result, ())
        result = [y, *gradients[:1], *gradients[-1:]]
        if name in ("xla shift+dot", "jax conv3x3", "jax 1x1"):
            expected[family] = result
        elif not compare(name, family, result):
            return
        functions[name] = run

    def add_torch(name, family, function):
        tensors = [(nchw(x).requires_grad_(training), nchw(g)) for x, g in inputs]
        exact_w, timed_w = ([oihw(w).requires_grad_(training) for w in which[family]]
                            for which in (exact, timed))  # fmt: skip

        def run(i, weights=timed_w):
            x, g = tensors[i % len(tensors)]
            with torch.set_grad_enabled(training):
                y = function(x, *weights)
            return (y, *torch.autograd.grad(y, (x, *weights), g)) if training else (y,)

        if compare(name, family, from_torch(*run(0, exact_w))):
            functions[name] = run

    ours = jax_functions(layer)
    for name in sorted(
        ours, key=lambda name: not name.startswith("xla")
    ):  # The reference comes first.
        if name not in flags.without or name == "xla shift+dot":
            attempt(name, notes, add_jax, name, *ours[name])
    if torch:
        torch._dynamo.reset()  # Otherwise it stops compiling after a few shapes.
        for name, found in torch_functions(layer, flags.backend).items():
            if name not in flags.without:
                attempt(name, notes, add_torch, name, *found)
    return medians(functions, flags.seconds, flags.rounds), notes


def layer_table(flags, here: dict, rows: list) -> None:
    ceilings = measured_ceilings(flags.rehearse)
    found = layers(flags.model)
    if flags.rehearse:
        found = Counter({Layer(6, 5, 16, 8, 3, 1): 1, Layer(5, 5, 24, 16, 5, 2): 1})
    common = {
        "copy_gb_s": f"{ceilings['bytes'] / 1e9:.0f}",
        "product_tflop_s": f"{ceilings['flops'] / 1e12:.1f}",
        **{f"{key}_us": f"{v * 1e6:.1f}" for key, v in ceilings.items() if key.endswith("call")},
    }
    print(" ".join(f"{key}={value}" for key, value in common.items()))
    for number, (layer, times) in enumerate(found.items()):
        for training in (False, True):
            seconds, notes = layer_row(layer, training, ceilings, flags, flags.seed + 99 * number)
            bound = layer.bound(flags.batch, ceilings) * (3 if training else 1)
            row = {
                "x": "x".join(map(str, layer.shape(flags.batch))),
                **dict(zip(layer._fields[3:], layer[3:], strict=True)),
                "layers": times,
                "pass": "forward+backward" if training else "forward",
                "dtype": "bfloat16",
                "roofline_us": f"{bound * 1e6:.1f}",
            }
            row |= {f"{name}_us": f"{value * 1e6:.1f}" for name, value in seconds.items()}
            rows.append(row | {"notes": "; ".join(notes)} | common | here)
            print("  ".join(f"{k}={v}" for k, v in rows[-1].items() if k not in common | here))
