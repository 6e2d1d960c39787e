"""Times the fused shift + pointwise convolution on a GPU beside all that competes with it.

    python benchmarks/shift_conv.py [--batch=256] [--without=NAME ...] [--chart=FILE.png]
    python benchmarks/shift_conv.py --networks [--chart=FILE.png]
    python benchmarks/shift_conv.py [--networks] --rehearse

One row for each different shift layer of ShiftNet-A and each of forward and forward + backward, in
bfloat16: microseconds of the kernel by name, the library's own choice, XLA's shift + dot,
depthwise k×k + 1×1, a full 3×3 and a plain 1×1 convolution, the last three in JAX and in PyTorch
(channels last, eager and compiled), beside `roofline_us`: reading and writing x, w and y once, or
the products of shift + 1×1, at the speeds of a copy and of a product measured in the same run;
forward + backward is three times that. What fails, or differs from XLA, has no time but a sentence
in `notes`. A time near `jax_call_us` or `torch_call_us`, those of a call that computes nothing, is
the host's and not the GPU's.

`--networks` prints images/s of inference and of a training step (SGD with momentum) instead: of
ShiftNet-A with kernels wherever they can, as the library chooses, and by XLA; and of timm's
mobilenetv1_100 and resnet50, compiled. Needs jax, flax and numpy; what torch, timm and matplotlib
are for is left out without them. `--rehearse` runs all of it in miniature on a CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.55")  # PyTorch needs memory too.
if "--rehearse" in sys.argv:
    os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.formulations import training_step
from benchmarks.shift import RESULTS, machine, torch
from benchmarks.table import write_table
from shift_jax import create_model, ops
from shift_jax.files import replaced_file
from shift_jax.layers import ShiftConv
from shift_jax.models.registry import model_record
from shift_jax.ops.fused import call, lowering

if torch and "--rehearse" not in sys.argv and not torch.cuda.is_available():
    torch = None

DTYPE = jnp.bfloat16
# Of the largest value: two bfloat16 roundings are a quarter of it.
TOLERANCE = 2**-6
TORCH_NETWORKS = ("mobilenetv1_100", "resnet50")


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
        """Seconds that no pass beats: its arrays moved once, or its products."""
        x, y = math.prod(self.shape(batch)), math.prod(self.shape(batch, out=True))
        moved = 2 * (x + y + self.channels * self.features)
        return max(moved / ceilings["bytes"], 2 * y * self.channels / ceilings["flops"])


def layers(name: str) -> Counter:
    """The network's different layers that shift, with their number."""
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
    """{name: (family, function of x and the family's weights)}."""
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
    """The same of NCHW tensors in channels last, eager and compiled."""
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


def random(seed: int, shape, fan_in: int = 1):
    return jax.random.normal(jax.random.key(seed), shape, DTYPE) / math.sqrt(fan_in)


def weights(layer: Layer, seed: int, *, as_shift: bool) -> dict:
    """The arguments of each family after x; a depthwise kernel that shifts, or any."""
    k, c, n = layer.kernel_size, layer.channels, layer.features
    w = random(seed, (c, n), c)
    depthwise = random(seed + 1, (k, k, 1, c), k * k)
    if as_shift:
        dy, dx = np.asarray(ops.shift_offsets(c, k)).T + k // 2
        depthwise = jnp.zeros_like(depthwise).at[dy, dx, 0, np.arange(c)].set(1)
    dense = random(seed + 2, (3, 3, c, n), 9 * c)
    return {"shift": (w,), "depthwise": (depthwise, w), "conv3x3": (dense,), "1x1": (w,)}


def nchw(array):
    """A JAX array [B, H, W, C] as PyTorch's channels last, without a copy."""
    return torch.from_dlpack(array).permute(0, 3, 1, 2)


def oihw(array):
    """A JAX kernel, (C, N) or [k, k, C, N], as PyTorch's."""
    kernel = torch.from_dlpack(array[None, None] if array.ndim == 2 else array)
    return kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def from_torch(y, *gradients):
    """PyTorch's y, dx and dw in the shapes of JAX's."""
    results = [t.detach().permute(0, 2, 3, 1) for t in (y, *gradients[:1])]
    results += [t.permute(2, 3, 1, 0) for t in gradients[-1:]]
    return [jnp.from_dlpack(t.contiguous()) for t in results]


def wait(result) -> None:
    jax.block_until_ready(result)
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def medians(functions: dict, seconds: float, rounds: int = 15) -> dict:
    """{name: median seconds of a call}; the functions take the number of the call.

    They take turns, at least `rounds` of them; one queues calls for about 20 ms and waits once.
    """
    calls, times, done = {}, {name: [] for name in functions}, Counter()
    for name, function in functions.items():
        for _ in range(2):  # The first one also fills caches.
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
    """Bytes/s of a copy, read and written; flop/s of a product; seconds of calls of nothing."""
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
    """function(*args), or None and a note why not."""
    try:
        return function(*args)
    except Exception as error:  # No failure of one competitor may end the run.
        notes.append(f"{name}: {(str(error) or repr(error)).strip().splitlines()[0][:200]}")
        return None


def checked(name: str, result, expected, notes: list) -> bool:
    """Whether y, dx and dw are those expected; else a note."""
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
        # The depthwise kernel shifts, so that both families have one result, XLA's.
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
    for name in sorted(ours, key=lambda name: not name.startswith("xla")):  # What is right first.
        if name not in flags.without or name == "xla shift+dot":
            attempt(name, notes, add_jax, name, *ours[name])
    if torch:
        torch._dynamo.reset()  # Else it gives up compiling after a few shapes.
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


def kernels_chosen():
    """A context in which the library chooses the kernels wherever they can."""
    return patch.object(
        lowering, "choose", lambda *args: "pallas_gpu" if any(map(any, args[-1].offsets)) else "xla"
    )


def jax_network(name: str, dtype, images, labels, training: bool):
    """(images) -> logits, or (state, images) -> (state, loss), not compiled; and variables."""
    model = create_model(name, dtype=dtype)
    variables = jax.jit(model.init)(jax.random.key(0), images[:1])

    def step(state, images):
        params, others, momentum = state

        def loss(params):
            variables = {**others, "params": params}
            y, new = model.apply(variables, images, train=True, mutable=list(others))
            y = jax.nn.log_softmax(y.astype(jnp.float32))
            return -jnp.take_along_axis(y, labels[:, None], 1).mean(), {**others, **new}

        (value, others), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, gradient)
        params = jax.tree.map(lambda p, m: p - 1e-3 * m, params, momentum)
        return (params, others, momentum), value

    if not training:
        return lambda variables, images: (variables, model.apply(variables, images)), variables
    params = variables.pop("params")
    return step, (params, variables, jax.tree.map(jnp.zeros_like, params))


def torch_network(name: str, images, labels, training: bool, backend: str):
    """The number of a call -> logits or loss, of one of timm's networks."""
    import timm

    device = torch.from_dlpack(images[0]).device
    model = timm.create_model(name).to(device, memory_format=torch.channels_last).train(training)
    images, labels = [nchw(x) for x in images], torch.from_dlpack(labels).long()
    compiled = torch.compile(model, dynamic=False, backend=backend)
    if not training:
        model.bfloat16()
        return torch.no_grad()(lambda i: compiled(images[i % len(images)]))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    def step(i):
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16):
            y = compiled(images[i % len(images)])
        loss = torch.nn.functional.cross_entropy(y.float(), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def network_rows(training: bool, flags, here: dict) -> list[dict]:
    images = [random(flags.seed + i, (flags.batch, *flags.image)) for i in range(2)]
    labels = jax.random.randint(jax.random.key(flags.seed), (flags.batch,), 0, 10)
    functions, results = {}, {}

    def distance(result, expected):
        pairs = zip(*map(jax.tree.leaves, (result, expected)), strict=True)
        squares = [(jnp.sum((a - b) ** 2.0), jnp.sum(b * 1.0 * b)) for a, b in pairs]
        return float(jnp.sqrt(sum(a for a, _ in squares) / sum(b for _, b in squares)))

    def add(name, dtype, context):
        with context:
            f, state = jax_network(flags.model, dtype, images[0], labels, training)
            f = jax.jit(f).lower(state, images[0]).compile()
        new, result = f(state, images[0])
        # The first step's momentum is the gradient.
        results[name] = jax.tree.map(
            lambda a: a.astype(jnp.float32), new[2] if training else result
        )
        if name == "float32":
            return
        error, usual = (distance(results[key], results["float32"]) for key in (name, "xla"))
        if not error <= 2 * usual:
            raise ValueError(f"not timed, {error:.3g} from float32, XLA's bfloat16 {usual:.3g}")
        notes[name].append(f"{error:.3g} from float32")

        def run(i):
            nonlocal state
            state, result = f(state, images[i % 2])
            return result

        functions[name] = run

    forced = {"xla": ops.implementation("xla"), "library": ExitStack(), "kernels": kernels_chosen()}
    others = TORCH_NETWORKS if torch else ()
    notes = {name: [] for name in ("float32", *forced, *others)}
    attempt("float32", notes["float32"], add, "float32", jnp.float32, ops.implementation("xla"))
    for name, context in forced.items():
        attempt(name, notes[name], add, name, DTYPE, context)
    for name in others:
        args = (name, images, labels, training, flags.backend)
        functions[name] = attempt(name, notes[name], torch_network, *args)
    functions = {name: f for name, f in functions.items() if f}
    seconds = medians(functions, 4 * flags.seconds, flags.rounds)
    return [
        {
            "network": name if name in others else flags.model,
            "by": "torch.compile" if name in others else name,
            "pass": "training step" if training else "inference",
            "batch": flags.batch,
            "images_per_s": f"{flags.batch / seconds[name]:.1f}" if name in seconds else "",
            "notes": "; ".join(notes[name]),
            **here,
        }
        for name in notes
        if name != "float32"
    ]


def chart(path: Path, rows: list[dict], networks: bool) -> None:
    """Bars: images/s of networks; of layers the share of the roofline."""
    if importlib.util.find_spec("matplotlib") is None:
        print("No chart: matplotlib is not installed.")
        return
    import matplotlib.pyplot as plt

    passes = list(dict.fromkeys(row["pass"] for row in rows))
    size = (16, 1 + (0.3 if networks else 1.2) * len(rows))
    figure, panels = plt.subplots(1, len(passes), figsize=size, squeeze=False, layout="constrained")
    for panel, title in zip(panels[0], passes, strict=True):
        shown = [row for row in rows if row["pass"] == title]
        if networks:
            labels = [f"{row['network']}, {row['by']}" for row in shown]
            panel.barh(labels, [float(row["images_per_s"] or 0) for row in shown])
        else:
            skip = ("roofline_us", "jax_call_us", "torch_call_us")
            keys = [k for k in dict.fromkeys(k for r in rows for k in r) if k.endswith("_us")]
            keys = [key for key in keys if key not in skip]
            for j, key in enumerate(keys):
                at = [i + 0.8 * j / len(keys) for i in range(len(shown))]
                share = [
                    float(row["roofline_us"]) / float(row[key]) if key in row else 0
                    for row in shown
                ]
                label, color = key.removesuffix("_us"), plt.get_cmap("tab20")(j)
                panel.barh(at, share, 0.8 / len(keys), label=label, color=color)
            names = ["{x} → {features}, k={kernel_size}, s={stride}".format(**row) for row in shown]
            panel.set_yticks(range(len(shown)), names)
        panel.invert_yaxis()
        panel.set_title(title)
        panel.set_xlabel("images/s" if networks else "share of the roofline")
    figure.suptitle(rows[0]["device"])
    if not networks:
        bars = panels[0, 0].get_legend_handles_labels()
        figure.legend(*bars, loc="outside lower center", ncols=6)
    with replaced_file(path) as temporary:
        figure.savefig(temporary)
    print(f"wrote {path.name}")


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--networks", action="store_true", help="whole networks, not layers")
    parser.add_argument("--model", default="shiftnet_a", help="a registered name")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each function of a row")
    parser.add_argument("--rotate", type=int, default=256, help="MiB of inputs taken in turn")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**31, help="of the data")
    parser.add_argument("--without", nargs="*", default=[], help="functions of layers to leave out")
    parser.add_argument("--rehearse", action="store_true", help="in miniature on a CPU")
    parser.add_argument("--output", type=Path, help="the CSV to write")
    parser.add_argument("--chart", type=Path, help="the picture to write")
    flags = parser.parse_args(argv)
    if jax.default_backend() != "gpu" and not flags.rehearse:
        print("JAX sees no GPU here: run this on a machine with one, or add --rehearse.")
        return 2
    here, rows = machine(), []
    if torch:
        torch.backends.cudnn.benchmark = True
    else:
        print("No rows of PyTorch: it is not installed here, or not for this GPU.")
    flags.backend, flags.rounds = "inductor", 15
    flags.image = model_record(flags.model).image_shape
    with ExitStack() as stack:
        if flags.rehearse:
            rehearse(flags, here, stack)
        print(" ".join(f"{key}={value}" for key, value in here.items()), f"seed={flags.seed}")
        try:
            if flags.networks:
                for training in (False, True):
                    rows += network_rows(training, flags, here)
                    print(*rows[-5:], sep="\n", flush=True)
            else:
                layer_table(flags, here, rows)
        finally:
            if rows and (flags.output or not flags.rehearse):
                name = f"shift_conv{'_networks' if flags.networks else ''}_gpu.csv"
                write_table(flags.output or RESULTS / name, rows)
    if flags.chart:
        chart(flags.chart, rows, flags.networks)
    return 0


def rehearse(flags, here: dict, stack: ExitStack) -> None:
    """Makes everything small, and kernels run in JAX's interpreter of them."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    class Inline:
        """In the place of the primitive, whose lowering cannot order the interpreter's steps."""

        @staticmethod
        def bind(*leaves, static):
            return lowering.resolve(static, "cuda", None, leaves)(*leaves)

    stack.enter_context(patch.object(call, "_call_p", Inline))
    stack.enter_context(call.INTERPRET(InterpretGPUParams()))
    flags.batch, flags.rotate, flags.seconds, flags.backend = 2, 0, 0, "aot_eager"
    flags.rounds, flags.model, flags.image = 1, "shiftresnet20", (8, 8, 3)
    here["device"] += " (rehearsal: no time means anything)"


if __name__ == "__main__":
    sys.exit(main())
