"""Times the fused shift + pointwise convolution on a GPU beside its competitors.

    python benchmarks/shift_conv.py [--batch=256] [--without=NAME ...] [--chart=FILE.png]
    python benchmarks/shift_conv.py --networks [--chart=FILE.png]
    python benchmarks/shift_conv.py [--networks] --rehearse

The table has two rows, forward and forward + backward, for each different shift layer of ShiftNet-A
in bfloat16. A row has the microseconds of the kernel by name, the library's own choice, XLA's
shift + dot, a depthwise k×k + 1×1, a full 3×3 and a plain 1×1 convolution, the last three in JAX
and in PyTorch (channels last, eager and compiled). `roofline_us` is the time to read and write x, w
and y once, or to compute the products of shift + 1×1, at the speeds of a copy and of a product
measured in the same run; forward + backward counts three times that. A function that fails, or
differs from XLA, has a sentence in `notes` instead of a time. A time near `jax_call_us` or
`torch_call_us`, those of a call that computes nothing, is the time of the host, not of the GPU.

`--networks` instead prints images/s at inference and in a training step (SGD with momentum) of
ShiftNet-A, with kernels wherever they can run, with the library's choice, and with XLA; and of
timm's mobilenetv1_100 and resnet50, compiled. The script needs jax, flax and numpy; without torch,
timm or matplotlib it leaves out what they are for. `--rehearse` runs everything in miniature on a
CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.55")  # PyTorch needs memory too.
if "--rehearse" in sys.argv:
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.gpu_layers import layer_table
from benchmarks.gpu_networks import network_rows
from benchmarks.gpu_timing import torch
from benchmarks.shift import RESULTS, machine
from benchmarks.table import write_table
from shift_jax.files import replaced_file
from shift_jax.models.registry import model_record
from shift_jax.ops.fused import call, lowering


def chart(path: Path, rows: list[dict], networks: bool) -> None:
    """Draws bars: the images/s of networks, or the share of the roofline of layers."""
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
    parser.add_argument("--rotate", type=int, default=256, help="MiB of inputs to take in turn")
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
        print("No rows of PyTorch: it is not installed, or not for this GPU.")
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
    """Makes everything small, and runs kernels in JAX's interpreter."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    class Inline:
        """Replaces the primitive, whose lowering cannot order the interpreter's steps."""

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
