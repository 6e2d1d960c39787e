"""What the TPU kernels copy and keep, by counting and without running a kernel."""

from math import prod
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from benchmarks.tpu_compiler import pallas_calls
from shift_jax.ops.fused import tpu
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import plan as planning
from shift_jax.ops.fused.tpu import stream as streaming
from shift_jax.ops.fused.tpu.plan import Plan, Problem, make_plan
from tests.ops.fused.cases import anywhere, paper
from tests.ops.fused.networks import OPERATIONS, layers, program

# --- bytes -------------------------------------------------------------------------------------


def kernel_of(operation, shape, features, spec, prologue, cores=1):
    """The one pallas_call of an operation, and the bytes of its arguments and results."""
    options = {"cores": cores}
    function, arguments = program(tpu, operation, shape, features, spec, prologue, **options)
    traced = jax.make_jaxpr(function)(*arguments)
    (call,) = pallas_calls(traced)
    leaves = (*jax.tree.leaves(arguments), *traced.out_avals)
    return call, sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def copied_bytes(call) -> int:
    """Follows the pipeline: a block is copied when it is not that of the step before."""
    grid = call.params["grid_mapping"].grid
    steps = np.stack(np.unravel_index(np.arange(prod(grid)), grid), axis=-1).astype(np.int32)
    total = 0
    for mapping in call.params["grid_mapping"].block_mappings:
        index_map = jaxpr_as_fun(mapping.index_map_jaxpr)
        per_axis = jax.jit(jax.vmap(index_map))(*steps.T)
        indices = np.stack([np.broadcast_to(axis, len(steps)) for axis in per_axis], axis=-1)
        block = [getattr(size, "block_size", size) for size in mapping.block_shape]
        array = mapping.array_aval
        # An input is copied before the first step with its block, an output after the last one.
        changes = np.any(indices[1:] != indices[:-1], axis=-1)
        for index in indices[np.concatenate([[True], changes])]:
            inside = np.minimum((index + 1) * block, array.shape) - index * np.asarray(block)
            assert (inside > 0).all()
            total += int(inside.prod()) * array.dtype.itemsize
    return total


COUNTED = {
    "one tile": ((16, 3, 4, 20), 9, 3, 1, 1, None),
    "a part of a block of images": ((9, 4, 5, 140), 8, 3, 1, 1, None),
    "tiles of a row": ((32, 6, 5, 40), 8, 5, 1, 1, 1),
    "tiles of two rows, stride 2": ((32, 12, 6, 40), 8, 5, 2, 1, 2),
    "stride 2, odd": ((16, 7, 5, 20), 9, 3, 2, 1, 1),
    "two cores": ((64, 6, 5, 40), 8, 3, 1, 2, 1),
    "two cores, stride 2": ((32, 8, 4, 27), 8, 3, 2, 2, None),
    "ShiftNet-A's widest, two cores": ((64, 28, 28, 384), 128, 5, 1, 2, None),
}


@pytest.mark.parametrize("prologue", [False, True])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", COUNTED)
def test_the_bytes_declared_are_the_bytes_copied(name, operation, prologue, monkeypatch):
    shape, features, kernel_size, stride, cores, rows = COUNTED[name]
    if rows:
        width = -(-shape[2] // stride)
        monkeypatch.setattr(planning, "_ENOUGH_ROWS", rows * width * 16)
    spec = Spec(paper(shape[3], kernel_size), stride, prologue, "none", operation == "forward")
    call, _ = kernel_of(operation, shape, features, spec, prologue, cores)
    grid = call.params["grid_mapping"].grid
    assert grid[0] == cores and (not rows or grid[1] > rows)
    assert copied_bytes(call) == call.params["cost_estimate"].bytes_accessed


@pytest.mark.parametrize(
    "operation",
    [pytest.param(o, marks=() if o == "forward" else pytest.mark.slow) for o in OPERATIONS],
)
def test_shiftnet_a_copies_little_more_than_its_arguments_and_results(operation):
    for *size, features, spec in layers("shiftnet_a"):
        shape = (64, *size)
        call, necessary = kernel_of(operation, shape, features, spec, spec.prologue_relu)
        declared = call.params["cost_estimate"].bytes_accessed
        assert declared <= 1.05 * necessary, (shape, features)
        assert declared == copied_bytes(call)


# --- the ring ----------------------------------------------------------------------------------


@pytest.fixture
def at(monkeypatch):
    """The stream with integers in the place of traced ones; at.core and at.step say where."""
    at = SimpleNamespace(core=0, step=0)

    def when(condition):
        return lambda body: body() if condition else None

    monkeypatch.setattr(
        streaming,
        "pl",
        SimpleNamespace(program_id=lambda axis: (at.core, at.step)[axis], when=when),
    )
    # As the device has them: they round towards zero.
    div = lambda a, b: int(a / b)  # noqa: E731
    lax = SimpleNamespace(div=div, rem=lambda a, b: a - div(a, b) * b)
    monkeypatch.setattr(streaming, "lax", lax)
    where = lambda condition, a, b: a if condition else b  # noqa: E731
    monkeypatch.setattr(streaming, "jnp", SimpleNamespace(minimum=min, maximum=max, where=where))
    return at


def left_tiles(at, plan, window, cores, check):
    """Runs the stream over the grid; calls check(tile, what is in a row relative to it)."""
    stream = streaming.Stream(plan, window, cores)
    left = []
    for at.core in range(stream.cores):
        ring: dict[int, tuple] = {}
        for at.step in range(stream.arrivals + window.lag):

            def arrive(first, ring=ring):
                block, tile = stream.arriving(at.core, at.step)
                assert first % window.rows == 0 and first + window.rows <= window.kept_rows
                for row in range(window.rows):
                    ring[first + row] = (block, tile * window.rows + row)

            def leave(ring_row, ring=ring):
                block, tile = stream.leaving(at.core, at.step)
                left.append((block, tile))

                def found(row: int):
                    place = ring_row(row)
                    if place == window.kept_rows:
                        return None
                    of_block, image_row = ring[place]
                    assert of_block == block
                    return image_row

                check(tile, found)

            stream.on_arrival(arrive)
            stream.on_leaving(leave)
    assert sorted(left) == [(b, t) for b in range(plan.blocks) for t in range(plan.tiles)]


def assert_finds_everything(at, plan, cores=1):
    """In every tile each channel's address holds the pixel that the definition names, or zero."""
    problem, stride = plan.problem, plan.problem.stride

    def is_zero(value, limit):
        return not 0 <= value < limit

    def gather(tile, found):
        window = plan.gather_window
        for offset in {o for t in problem.lane_tiles for o in t.offsets} - {None}:
            dy, dx = offset
            for row in range(plan.rows):
                address = problem.gathered(offset, row)
                wanted = stride * (tile * plan.rows + row) + dy
                held = found(address.row)
                # Rows below the image, that pad it to the stride, are zero themselves.
                assert held == (None if is_zero(wanted, problem.rows) else wanted)
                assert 0 <= address.plane < stride
                for column in (0, problem.out_width - 1):
                    place = window.left + address.column + column
                    assert 0 <= place < window.left + problem.out_width + window.right
                    assert (
                        stride * (address.column + column) + address.plane == stride * column + dx
                    )

    def scatter(tile, found):
        window = plan.scatter_window
        for offset in {o for t in problem.lane_tiles for o in t.offsets} - {None}:
            dy, dx = offset
            for row in range(plan.rows * stride):
                for phase in range(stride):
                    address = problem.scattered(offset, row, phase)
                    wide_row = tile * plan.rows * stride + row - dy
                    left_out = wide_row % stride or (phase - dx) % stride
                    assert (address is None) == bool(left_out)
                    if address is None:
                        continue
                    wanted = wide_row // stride
                    held = found(address.row)
                    assert held == (None if is_zero(wanted, problem.out_height) else wanted)
                    for column in (0, problem.out_width - 1):
                        place = window.left + address.column + column
                        assert 0 <= place < window.left + problem.out_width + window.right
                        assert stride * (address.column + column) == stride * column + phase - dx

    left_tiles(at, plan, plan.gather_window, cores, gather)
    left_tiles(at, plan, plan.scatter_window, cores, scatter)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 1), (6, 5), (9, 4), (12, 12)])
@pytest.mark.parametrize("shift", [(3, 1), (3, 4), (5, 1), (5, 2), (7, 1)])
def test_every_row_is_in_the_ring_when_it_is_read(at, size, shift, stride):
    problem = Problem.of(*size, paper(150, *shift), stride)
    for rows in range(1, problem.out_height + 1):
        if problem.out_height % rows == 0:
            assert_finds_everything(at, Plan(problem, rows, 16, 2))


@pytest.mark.parametrize("seed", range(12))
def test_every_row_of_random_offsets_is_in_the_ring(at, seed):
    random = np.random.default_rng(seed)
    height, width, stride, reach = (int(random.integers(1, most)) for most in (14, 6, 4, 16))
    problem = Problem.of(height, width, anywhere(9, reach, seed), stride)
    for rows in range(1, problem.out_height + 1):
        if problem.out_height % rows == 0:
            assert_finds_everything(at, Plan(problem, rows, 16, 4), cores=2)


def test_offsets_of_one_direction_keep_no_more_than_they_reach(at):
    for sign, lag in ((1, 3), (-1, 0)):
        problem = Problem.of(12, 3, ((0, 0), (3 * sign, 0)), 1)
        plan = Plan(problem, 1, 16, 2)
        assert plan.gather_window.lag == lag
        assert plan.gather_window.kept_rows == 4
        assert_finds_everything(at, plan)


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (1, 1)])
def test_selectors_name_each_channels_offset_or_none(size):
    offsets = anywhere(300, 7)
    problem = Problem.of(*size, offsets, 1)
    assert [t.start for t in problem.lane_tiles] == [0, 128, 256]
    for channel, (dy, dx) in enumerate(offsets):
        tile = problem.lane_tiles[channel // 128]
        assert tile.start <= channel < tile.stop
        inside = abs(dy) < size[0] and abs(dx) < size[1]
        named = tile.offsets[problem.selectors[0, channel]]
        assert named == ((dy, dx) if inside else None)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_the_tiles_fit_in_the_memory_and_divide_the_image(itemsize):
    for *size, features, spec in layers("shiftnet_a"):
        shape = (64, *size)
        problem = Problem.of(*shape[1:3], spec.offsets, spec.stride)
        plan = make_plan(64, problem, features, itemsize, 4)
        if plan is None:
            continue
        assert problem.out_height % plan.rows == 0
        assert plan.images * itemsize == 32 and plan.batch >= 64
        assert planning._vmem_bytes(plan, features, itemsize, 4) <= 14 * 2**20
        # The ring and its margins are in the count.
        window = plan.gather_window
        columns = window.left + problem.out_width + window.right
        ring = prod((window.kept_rows, spec.stride, columns, plan.images, shape[3])) * itemsize
        assert ring < planning._vmem_bytes(plan, features, itemsize, 4)
    huge = Problem.of(4, 4000, paper(512), 1)
    assert make_plan(1, huge, 512, itemsize, 3) is None
