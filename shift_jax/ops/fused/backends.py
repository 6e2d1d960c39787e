"""The backends of `shift_conv`: where their code is, and where they run."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal, NamedTuple

from shift_jax.ops.fused import xla

Implementation = Literal["xla", "pallas_tpu", "pallas_gpu"]


class Kernels(NamedTuple):
    """A backend other than XLA.

    Attributes:
      module: has `forward`, `input_gradient` and `weight_gradient` with the signatures of
        `shift_jax.ops.fused.xla`, and `unsupported`.
      platform: the only one that runs it, as JAX names platforms in lowering.
      devices: the platform's name in sentences.
    """

    module: str
    platform: str
    devices: str


KERNELS = {
    "pallas_tpu": Kernels("shift_jax.ops.fused.tpu", "tpu", "TPUs"),
    "pallas_gpu": Kernels("shift_jax.ops.fused.gpu", "cuda", "NVIDIA GPUs"),
}


def backend(name: str) -> ModuleType:
    """Returns the module that implements `name`, "xla" or a key of `KERNELS`.

    Kernels are imported on first use: Pallas is slow to import.
    """
    return xla if name == "xla" else importlib.import_module(KERNELS[name].module)
