"""Whole networks: the fused kernels, XLA, and PyTorch, checked and timed."""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import jax
import jax.numpy as jnp

from benchmarks.gpu_timing import DTYPE, attempt, medians, nchw, random, torch
from shift_jax import create_model, ops
from shift_jax.ops.fused import lowering

TORCH_NETWORKS = ("mobilenetv1_100", "resnet50")


def kernels_chosen():
    """Returns a context in which the library chooses kernels wherever they can run."""
    return patch.object(
        lowering, "choose", lambda *args: "pallas_gpu" if any(map(any, args[-1].offsets)) else "xla"
    )


def jax_network(name: str, dtype, images, labels, training: bool):
    """Returns (state, images) -> (state, logits or loss), not compiled, and the first state."""
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
    """Returns a function from the number of a call to logits or loss, of a network of timm."""
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
        # The momentum after the first step is the gradient.
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
