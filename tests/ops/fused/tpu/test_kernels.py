from functools import partial

import jax
import jax.numpy as jnp
import pytest

# JAX 0.10.2 has it nowhere else.
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as tpu_interpreter
from jax.experimental.pallas import tpu as pltpu

from shift_jax.ops.fused import tpu
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import dx, fwd, tile
from shift_jax.ops.fused.tpu import plan as planning
from tests.ops.fused.backend_tests import FAST_COMPILE, BackendTests
from tests.ops.fused.cases import EDGES, EVERYTHING, Case, anywhere, paper

TPU_EDGES = {
    "tiles of a row": Case(
        (32, 6, 3, 27), 8, paper(27, 3, 2), tile_rows=1, **EVERYTHING, relu="last"
    ),
    "tiles of a row, stride 2, k = 5": Case(
        (8, 8, 4, 25), 8, paper(25, 5), 2, "float32", tile_rows=1, **EVERYTHING,
    ),
    "tiles of two rows, far offsets": Case(
        (2, 8, 3, 32), 8, anywhere(32, 7), prologue="relu", tile_rows=2
    ),
    "pieces of columns": Case(
        (2, 2, 5, 20), 8, paper(20), **EVERYTHING, relu="last", pieces=True
    ),
    "pieces of rows": Case(
        (2, 5, 3, 20), 8, paper(20), 1, "float32", **EVERYTHING, relu="last", pieces=True
    ),
    "two cores": Case(
        (64, 3, 2, 18), 8, paper(18), tile_rows=1, cores=2, **EVERYTHING, relu="last"
    ),
    "two cores, stride 2": Case((32, 4, 3, 20), 8, paper(20), 2, tile_rows=1, cores=2),
    "strips": Case(
        (3, 2, 9, 40), 8, paper(40, 5), dtype="float32", narrow=True, **EVERYTHING, relu="last"
    ),
    "strips, stride 2": Case(
        (2, 3, 13, 20), 8, paper(20), 2, narrow=True, prologue="scale bias relu",
        epilogue="bias residual", relu="before_residual",
    ),
}  # fmt: skip


class TestPallasTpu(BackendTests):
    module = tpu
    everyday_layers = 3

    def interpret(self, function, case, quick, operands, **options):
        params = pltpu.InterpretParams(
            detect_races=True, uninitialized_memory="nan", num_cores_or_threads=case.cores
        )
        options |= {"cores": case.cores, "interpret": True if quick else params}
        run = jax.jit(partial(function, **options), compiler_options=FAST_COMPILE)
        if quick:
            return run(operands)
        try:
            results = jax.block_until_ready(run(operands))
            assert not tpu_interpreter.races.races_found
        finally:
            pltpu.reset_tpu_interpret_mode_state()
        return results

    def prepare(self, case, monkeypatch):
        """Makes the tiles what the case says."""
        problem = planning.Problem.of(*case.shape[1:3], case.offsets, case.stride)
        itemsize = jnp.dtype(case.dtype).itemsize
        images = 32 // itemsize
        if case.tile_rows:
            rows = case.tile_rows * problem.out_width * images
            monkeypatch.setattr(planning, "_ENOUGH_ROWS", rows)
        if case.narrow:
            # A byte less than one row takes in the operation with the fewest buffers.
            plan = planning.Plan(problem, 1, images, -(-case.shape[0] // images))
            least = planning._vmem_bytes(plan, case.features, itemsize, 2)
            monkeypatch.setattr(planning, "_VMEM_BYTES", least - 1)
        if case.pieces:
            for module in (dx, tile):
                monkeypatch.setattr(module, "COLUMNS", 2)
            for module in (fwd, tile):
                monkeypatch.setattr(module, "PRODUCT_ROWS", 64)
        for buffers in (2, 3, 4):
            plan = planning.make_plan(
                case.shape[0], problem, case.features, itemsize, wide_buffers=buffers
            )
            assert (plan is None) == case.narrow
            if case.tile_rows:
                assert plan.rows == case.tile_rows and plan.tiles > 1
                assert plan.blocks % case.cores == 0

    @pytest.mark.parametrize("name", TPU_EDGES)
    def test_tiles_cores_and_strips(self, operation, name, monkeypatch):
        self.check(operation, TPU_EDGES[name], monkeypatch, quick=False)

    def test_refuses_more_channels_than_a_column_has_room_for(self, monkeypatch):
        case = EDGES["one pixel"]
        monkeypatch.setattr(planning, "_VMEM_BYTES", 1000)
        reason = tpu.unsupported(case.shape, jnp.dtype(case.dtype), case.features, case.spec)
        assert reason.endswith(
            "keeps rows of 1 pixels with 16 and 8 channels on the chip, which are too many: use "
            "None or 'xla'."
        )

    def test_cuts_a_wide_image_whose_offsets_reach_almost_through_it(self):
        offsets = ((0, 150), (0, 299), (0, 1000)) + ((0, 0),) * 253
        reason = tpu.unsupported((16, 1, 300, 256), jnp.bfloat16, 64, Spec(offsets))
        assert reason is None or "too many" in reason
