"""Times whole networks side by side on this device, in inference and in float32 or bfloat16.

    python benchmarks/networks.py shiftfacenet facenet --batch=256
    python benchmarks/networks.py shift_style_transformer style_transformer --batch=1

All networks run in turns; each row has the images per second of the shortest of its times, and how
many times as many they are as those of the last network named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.shift import machine, shortest
from benchmarks.table import write_table
from shift_jax.models import create_model, list_models, model_record

RESULTS = Path(__file__).parent / "results"


def compiled(name: str, batch: int, image_size: int | None, dtype: str):
    """Returns (image side, a call that waits for one batch of a network with random weights)."""
    height, width, channels = model_record(name).image_shape
    height, width = (image_size, image_size) if image_size else (height, width)
    model = create_model(name, dtype=jnp.dtype(dtype))
    images = jnp.asarray(
        np.random.default_rng(0).normal(size=(batch, height, width, channels)), jnp.float32
    )
    variables = jax.jit(lambda: model.init(jax.random.key(0), images[:1], train=False))()
    apply = jax.jit(lambda variables, images: model.apply(variables, images, train=False))
    call = apply.lower(variables, images).compile()
    return height, lambda: jax.block_until_ready(call(variables, images))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", choices=list_models(), metavar="MODEL")
    parser.add_argument("--batch", type=int, default=256, help="images at once")
    parser.add_argument("--image_size", type=int, help="side in pixels; default: the record's")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=25, help="timed calls of each, at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each network")
    parser.add_argument("--output", type=Path, default=RESULTS / "networks.csv")
    arguments = parser.parse_args()

    calls, sides = {}, {}
    for name in arguments.models:
        sides[name], calls[name] = compiled(
            name, arguments.batch, arguments.image_size, arguments.dtype
        )
    seconds = shortest(calls, arguments.repeats, arguments.seconds)
    last = seconds[arguments.models[-1]]
    rows = []
    for name in arguments.models:
        rate, ratio = arguments.batch / seconds[name], last / seconds[name]
        print(f"{name:28} {rate:10,.1f} images/s  {ratio:6.2f}×")
        rows.append(
            {
                "model": name,
                "batch": arguments.batch,
                "image_side": sides[name],
                "dtype": arguments.dtype,
                "images_per_second": round(rate, 2),
                "ratio_to_last": round(ratio, 3),
                **machine(),
            }
        )
    write_table(arguments.output, rows)


if __name__ == "__main__":
    main()
