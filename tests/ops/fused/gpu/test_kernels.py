import jax

# JAX 0.10.2 has these nowhere else.
from jax._src.pallas.mosaic_gpu.interpret.gpu_callbacks import get_races
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

from shift_jax.ops.fused import gpu
from tests.ops.fused.backend_tests import BackendTests


class TestPallasGpu(BackendTests):
    module = gpu
    everyday_edges = (
        "one pixel",
        "stride 2, even",
        "33 images and everything around",
    )
    everyday_layers = 0

    def interpret(self, function, case, quick, operands, **options):
        params = InterpretGPUParams(detect_races=True)
        results = jax.block_until_ready(function(operands, interpret=params, **options))
        assert not get_races().races_found
        return results

    def refused(self, case):
        channels, features = case.shape[-1], case.features
        if case.dtype != "bfloat16":
            return f"takes bfloat16, not {case.dtype}"
        if case.stride != 1:
            return f"takes stride 1, not {case.stride}"
        if channels % 8 or features % 8:
            return f"multiples of 8 channels and features, not {channels} and {features}"
        return None
