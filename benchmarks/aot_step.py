"""ShiftNet-A's train step for any number of chips, compiled by the TPU's compiler without them."""

from __future__ import annotations

import math
import time
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from benchmarks import tpu_compiler  # noqa: F401 It must precede the first use of JAX.
from shift_jax.config import ClassificationConfig
from shift_jax.models import create_model
from shift_jax.tasks.classification import Classification
from shift_jax.training.mesh import make_mesh, over_batch
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.step import abstract_state, make_train_step

IMAGE_SHAPE = (224, 224, 3)


class Slice(NamedTuple):
    """Chips that work together.

    Attributes:
      chip: a key of `CHIPS`, which has the peak and the memory bandwidth.
      topology: its name in the compiler.
      hbm_bytes: of one chip.
      ici_bytes_per_s: what one chip can send while a sum uses all links. As published, a v5e has
        4 links and 1,600 Gbit/s, a v4 6 links and 2,400 Gbit/s (cloud.google.com/tpu/docs). The
        links of a v5e wrap around only along 16 chips (jax-ml.github.io/scaling-book/tpus), so the
        corners of 4×4 send over 2 of 4.
      hops: from a chip to the farthest one.
      options: of the topology. One device of a v4 is a chip with both of its cores.
    """

    chip: str
    topology: str
    hbm_bytes: int
    ici_bytes_per_s: float
    hops: int
    options: dict = {}  # noqa: RUF012 a NamedTuple's


SLICES = {
    "v5e-1": Slice("v5e", "v5e:1x1", 16 * 2**30, 200e9, 0),
    "v5e-16": Slice("v5e", "v5e:4x4", 16 * 2**30, 100e9, 6),
    "v5e-256": Slice("v5e", "v5e:16x16", 16 * 2**30, 200e9, 16),
    "v4-128": Slice("v4", "v4:4x4x8", 32 * 2**30, 300e9, 8, {"chip_config_name": "megacore"}),
}


class Cell(NamedTuple):
    """One compilation: `batch` images on all chips; each `fsdp` of them share a state."""

    slice: str
    batch: int
    fsdp: int = 1
    accumulation: int = 1

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads "v5e-16x2048", "v5e-16x2048/fsdp=4" or "v5e-16x16384/accumulation=2"."""
        name, *options = text.split("/")
        chips, _, batch = name.rpartition("x")
        if chips not in SLICES or not batch.isdigit():
            raise SystemExit(f"{text!r} is no cell; expected such as v5e-16x2048/fsdp=4.")
        return cls(chips, int(batch), **{k: int(v) for k, v in (o.split("=") for o in options)})

    def __str__(self) -> str:
        return (
            f"{self.slice}x{self.batch}"
            + (f"/fsdp={self.fsdp}" if self.fsdp > 1 else "")
            + (f"/accumulation={self.accumulation}" if self.accumulation > 1 else "")
        )

    @property
    def chips(self) -> int:
        return int(self.slice.partition("-")[2])

    @property
    def part(self) -> int:
        """The images that a chip holds in memory at once."""
        return self.batch // self.chips // self.accumulation


class ImageNet(Classification):
    """The task without the images, of which only the shape matters."""

    image_shape = IMAGE_SHAPE
    model = create_model("shiftnet_a", dtype=jnp.bfloat16, num_classes=1000)


def program(cell: Cell) -> dict:
    """Returns what the compiler says about a cell, or only "error" if it does not fit."""
    where = SLICES[cell.slice]
    devices = topologies.get_topology_desc(
        platform="tpu", topology_name=where.topology, **where.options
    ).devices
    mesh = make_mesh(devices, cell.fsdp)
    config = ClassificationConfig()
    config.model.dtype = "bfloat16"
    config.data.mean, config.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    schedule = make_schedule(config.schedule, 1, 1)
    learner, optimizer = ImageNet(config), make_optimizer(config.optimizer, schedule, 1)
    state = abstract_state(learner, optimizer, 0, mesh)

    def rows(dtype, *shape):
        return jax.ShapeDtypeStruct((cell.batch, *shape), dtype, sharding=over_batch(mesh))

    batch = {
        "image": rows(jnp.uint8, *IMAGE_SHAPE),
        "label": rows(jnp.int32),
        "stop": rows(jnp.bool_),
    }
    step = make_train_step(learner, optimizer, mesh, accumulation_steps=cell.accumulation)
    began = time.monotonic()
    found = {
        "state_bytes": sum(map(_bytes_of_shard, jax.tree.leaves(state))),
        "params_bytes": sum(map(_bytes_of_shard, jax.tree.leaves(state.params))),
        "jax": jax.__version__,
        "libtpu": version("libtpu"),
    }
    try:
        compiled = step.lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {**found, "error": str(error), "compile_s": time.monotonic() - began}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return {
        **found,
        "text": compiled.as_text(),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "compile_s": time.monotonic() - began,
    }


def _bytes_of_shard(leaf: jax.ShapeDtypeStruct) -> int:
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.eval_shape(jax.random.key_data, leaf).size * 4
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
