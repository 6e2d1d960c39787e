"""Every backend of `shift_conv` against the definition, in one class that all of them inherit.

The TPU's and the GPU's kernels are run by JAX's interpreters on a CPU. They tell whether the
numbers are right, whether anything is read before it is written and whether two threads race;
`test_tpu_compiler` tells whether the TPU's compiler takes them.
"""

from dataclasses import dataclass, replace
from functools import partial
from math import prod, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest

# JAX 0.10.2 has these nowhere else.
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as tpu_interpreter
from jax._src.pallas.mosaic_gpu.interpret.gpu_callbacks import get_races
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams
from jax.experimental.pallas import tpu as pltpu

from shift_jax.errors import InputError
from shift_jax.ops import shift_conv, shift_offsets
from shift_jax.ops.fused import call, pallas_gpu, pallas_tpu, tpu_plan, tpu_tile, xla
from shift_jax.ops.fused.spec import Relu, Spec
from tests.ops.networks import layers
from tests.ops.reference import loop_adjoint, loop_shift

# The compiler's time is most of a test's.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclass(frozen=True)
class Case:
    """One layer and what surrounds it.

    Attributes:
      shape: of x.
      features, offsets, stride, dtype: of the layer.
      prologue: those of "scale offset relu" that there are.
      epilogue: those of "bias residual statistics" that there are.
      relu: where the epilogue's is.
      tile_rows: for the TPU kernels, output rows of a tile; None for their own choice.
      narrow: for the TPU kernels, too little memory for the whole width.
      cores: of the TPU.
      pieces: whether the TPU's tiles are computed in pieces, as only large ones are.
    """

    shape: tuple[int, int, int, int]
    features: int
    offsets: tuple[tuple[int, int], ...]
    stride: int = 1
    dtype: str = "bfloat16"
    prologue: str = ""
    epilogue: str = ""
    relu: Relu = "none"
    tile_rows: int | None = None
    narrow: bool = False
    cores: int = 1
    pieces: bool = False

    @property
    def out_shape(self) -> tuple[int, ...]:
        batch, height, width, _ = self.shape
        return (batch, -(-height // self.stride), -(-width // self.stride), self.features)

    @property
    def spec(self) -> Spec:
        statistics, prologue_relu = "statistics" in self.epilogue, "relu" in self.prologue
        return Spec(self.offsets, self.stride, prologue_relu, self.relu, statistics)

    def arrays(self) -> dict:
        """Random ones; those that there are not are None.

        The prologue's have few digits: with a 16-bit x it is then exact in float32, and what it is
        rounded to and its sign are the same for everyone.
        """
        channels = self.shape[-1]

        def random(seed, *shape, dtype=self.dtype, given=True):
            values = np.random.default_rng(seed).normal(size=shape)
            return jnp.asarray(jnp.asarray(values, self.dtype), dtype) if given else None

        few_digits = partial(random, dtype=jnp.float32)
        return {
            "x": random(0, *self.shape),
            "w": random(1, channels, self.features),
            "bias": few_digits(2, self.features, given="bias" in self.epilogue),
            "scale": few_digits(3, channels, given="scale" in self.prologue),
            "offset": few_digits(4, channels, given="offset" in self.prologue),
            "residual": random(5, *self.out_shape, given="residual" in self.epilogue),
            "dy": random(6, *self.out_shape),
        }


def wide(array) -> np.ndarray:
    return np.asarray(jnp.asarray(array, jnp.float32), np.float64)


class Expected:
    """The definition in float64: each result, and the size of its rounding errors.

    A sum of n products of values about 1 is about √n: that many epsilons, with some to spare. Sums
    of what was rounded to the case's type before are as exact as that type.
    """

    def __init__(self, case: Case, sums_of_rounded: bool):
        self.case, self.spec = case, case.spec
        self.given = {
            key: None if array is None else wide(array) for key, array in case.arrays().items()
        }
        # Not only results but all partial sums are rounded to float32, some hundred times.
        self.sum_epsilon = 16 * float(jnp.finfo(jnp.float32).eps)
        self.epsilon = max(float(jnp.finfo(case.dtype).eps), self.sum_epsilon)
        if sums_of_rounded:
            self.sum_epsilon = self.epsilon
        self.pixels = prod(case.out_shape[:3])
        x, scale, offset = (self.given[key] for key in ("x", "scale", "offset"))
        self.before_relu = x if scale is None else x * scale
        if offset is not None:
            self.before_relu = self.before_relu + offset
        # The product's operands are rounded by definition.
        a = wide(jnp.asarray(self.before_relu, case.dtype))
        a = np.maximum(a, 0) if self.spec.prologue_relu else a
        stride = case.stride
        self.shifted = loop_shift(a, case.offsets)[:, ::stride, ::stride]

    def forward(self):
        bias, residual = self.given["bias"], self.given["residual"]
        y = self.shifted @ self.given["w"]
        y = y if bias is None else y + bias
        y = np.maximum(y, 0) if self.spec.relu == "before_residual" else y
        y = y if residual is None else y + residual
        y = np.maximum(y, 0) if self.spec.relu == "last" else y
        channels = self.case.shape[-1]
        yield y, self.case.dtype, self.epsilon * sqrt(channels)
        if self.spec.statistics:
            sums = np.stack([y.sum((0, 1, 2)), (y * y).sum((0, 1, 2))])
            # A square is about C.
            yield sums, "float32", self.sum_epsilon * channels * sqrt(self.pixels)
        else:
            yield None, None, None

    def input_gradient(self):
        height, width = self.case.shape[1:3]
        spread = np.zeros(self.case.shape)
        stride = self.case.stride
        spread[:, ::stride, ::stride] = self.given["dy"] @ self.given["w"].T
        assert spread.shape[1:3] == (height, width)
        g = loop_adjoint(spread, self.case.offsets)
        g = g * (self.before_relu > 0) if self.spec.prologue_relu else g
        scale, offset = self.given["scale"], self.given["offset"]
        size = self.epsilon * sqrt(self.case.features)
        yield (g if scale is None else g * scale), self.case.dtype, size
        for vector, terms in ((scale, g * self.given["x"]), (offset, g)):
            if vector is None:
                yield None, None, None
            else:
                yield terms.sum((0, 1, 2)), "float32", size * sqrt(self.pixels)

    def weight_gradient(self):
        dw = np.einsum("bhwc,bhwn->cn", self.shifted, self.given["dy"])
        yield dw, "float32", self.sum_epsilon * sqrt(self.pixels)


def assert_is(actual, expected) -> None:
    """Each result has its type, its shape and its values."""
    for array, (value, dtype, size) in zip(actual, expected, strict=True):
        assert (array is None) == (value is None)
        if value is not None:
            assert array.dtype == dtype
            assert array.shape == value.shape
            rtol = 2 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(wide(array), value, rtol=rtol, atol=4 * size)


# --- the cases ---------------------------------------------------------------------------------


def paper(channels, *args):
    return tuple(map(tuple, shift_offsets(channels, *args).tolist()))


def anywhere(channels, reach, seed=0):
    offsets = np.random.default_rng(seed).integers(-reach, reach + 1, (channels, 2))
    return tuple(map(tuple, offsets.tolist()))


EVERYTHING = {"prologue": "scale offset relu", "epilogue": "bias residual statistics"}

EDGES = {
    # Where channels end.
    "one pixel": Case((1, 1, 1, 16), 8, paper(16)),
    "one row, channels of no group": Case((9, 1, 7, 40), 8, paper(40), relu="last"),
    "one column, k = 7": Case((2, 9, 1, 56), 24, paper(56, 7), prologue="relu"),
    "300 channels, 1 feature": Case(
        (8, 3, 2, 300), 1, paper(300), dtype="float32", prologue="scale", epilogue="bias"
    ),
    "20 channels, 9 features": Case(
        (16, 3, 4, 20), 9, paper(20, 3, 1, "interleaved"), dtype="float32", prologue="offset",
        epilogue="residual", relu="before_residual",
    ),
    "140 channels, 130 features": Case(
        (2, 4, 3, 140), 130, paper(140), prologue="scale relu", epilogue="statistics"
    ),
    # Offsets.
    "dilation 2, interleaved": Case(
        (3, 7, 2, 72), 24, paper(72, 5, 2, "interleaved"), prologue="offset",
        epilogue="residual", relu="before_residual",
    ),
    "from anywhere and nowhere": Case(
        (1, 4, 5, 16), 16, anywhere(16, 7), prologue="scale relu", epilogue="bias statistics"
    ),
    "nothing moves": Case((16, 2, 3, 24), 8, paper(24, 1), prologue="offset relu"),
    "everything leads out": Case(
        (2, 2, 3, 16), 8, ((5, 0), (0, -9)) * 8, epilogue="bias statistics", relu="last"
    ),
    # Strides.
    "stride 2, even": Case((16, 4, 6, 40), 8, paper(40), 2, **EVERYTHING, relu="last"),
    "stride 2, odd": Case(
        (9, 5, 3, 20), 9, paper(20, 3, 2), 2, "float32", **EVERYTHING, relu="before_residual"
    ),
    "stride 2, one row": Case((2, 1, 6, 50), 8, anywhere(50, 3), 2),
    "stride 3, from anywhere": Case(
        (2, 7, 6, 18), 4, anywhere(18, 4), 3, prologue="offset", epilogue="statistics"
    ),
    # Batches.
    "33 images": Case(
        (33, 2, 3, 20), 8, paper(20), prologue="scale offset", epilogue="statistics"
    ),
    "33 images and everything around": Case(
        (33, 3, 2, 24), 8, paper(24), **EVERYTHING, relu="last"
    ),
}  # fmt: skip

# What only the TPU's kernels cut.
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
        (2, 3, 13, 20), 8, paper(20), 2, narrow=True, prologue="scale offset relu",
        epilogue="bias residual", relu="before_residual",
    ),
}  # fmt: skip

NETWORKS = [
    ("shiftnet_a", {}),
    ("shiftnet_b", {}),
    ("shiftnet_c", {}),
    ("shiftresnet20", {"expansion": 3}),
    ("shiftresnet20", {"expansion": 9}),
    ("shiftresnet50", {}),
]


def layer_case(height, width, channels, features, spec, batch=16) -> Case:
    """A layer with the prologue and the epilogue that it has in the network."""
    prologue = "scale offset relu" if spec.prologue_relu else ""
    epilogue = "statistics" if spec.statistics else ""
    shape = (batch, height, width, channels)
    return Case(
        shape, features, spec.offsets, spec.stride, "bfloat16", prologue, epilogue, spec.relu
    )


def small_layers() -> dict[str, Case]:
    """The layers of all networks on the smallest image that all of their offsets reach into.

    Every fourth is in float32.
    """
    found = {}
    for name, arguments in NETWORKS:
        for *_, channels, features, spec in layers(name, **arguments):
            reach = max(max(map(abs, offset)) for offset in spec.offsets)
            size = -(-(reach + 1) // spec.stride) * spec.stride
            case = layer_case(size + spec.stride * (reach == 1), size, channels, features, spec)
            key = f"{channels}-{features}-k{2 * reach + 1}-s{spec.stride}"
            found.setdefault(key, case)
    return {
        key: replace(case, dtype="float32", shape=(8, *case.shape[1:])) if i % 4 == 3 else case
        for i, (key, case) in enumerate(found.items())
    }


def shiftnet_a_layers() -> dict[str, Case]:
    return {
        f"{size[0]}-{size[2]}-{features}-s{spec.stride}": layer_case(*size, features, spec, 2)
        for *size, features, spec in layers("shiftnet_a")
    }


def test_the_networks_have_the_layers_of_the_paper():
    # Middle channels and features of ShiftNet-A's groups, expansions 4, 4, 3 and 2 (Table 8).
    keys = [(key[2], key[3], key[4].stride) for key in layers("shiftnet_a")]
    assert (128, 32, 2) in keys and (256, 64, 1) in keys and (512, 512, 1) in keys
    assert {size[2] for size in layers("shiftresnet20", expansion=9)} >= {144, 288, 576}
    assert len(small_layers()) > 30


# --- the class ---------------------------------------------------------------------------------


class BackendTests:
    """Inherited by a class for each backend; it says how to run it and what it refuses."""

    module = xla
    sums_of_rounded = False
    """Whether the statistics are those of the rounded output."""
    everyday_edges: tuple[str, ...] | None = None
    """The edge cases of the everyday run, None for all; the others are slow."""
    everyday_layers: int | None = None
    """How many layers the everyday run has, None for all; ShiftNet-A's are the first eight."""

    def interpret(self, function, case: Case, quick: bool, *arrays, **options):
        """Runs function(*arrays); `quick` without the checks of memory."""
        raise NotImplementedError

    def refused(self, case: Case) -> str | None:
        """What the sentence says if the backend cannot do it, as a regular expression."""
        return None

    def prepare(self, case: Case, monkeypatch) -> None:
        """Before anything runs."""

    def arguments(self, operation: str, case: Case):
        arrays, options = case.arrays(), {"spec": case.spec}
        names = {
            "forward": ("x", "w", "bias", "scale", "offset", "residual"),
            "input_gradient": ("dy", "w", "x", "scale", "offset"),
            "weight_gradient": ("x", "dy", "scale", "offset"),
        }[operation]
        if operation == "input_gradient":
            options["size"] = case.shape[1:3]
            if not case.prologue:
                arrays["x"] = None
        return [arrays[name] for name in names], options

    def check(self, operation: str, case: Case, monkeypatch, quick: bool) -> None:
        self.prepare(case, monkeypatch)
        arrays, options = self.arguments(operation, case)
        run = partial(self.interpret, getattr(self.module, operation), case, quick)
        if sentence := self.refused(case):
            with pytest.raises(InputError, match=sentence) as raised:
                run(*arrays, **options)
            reason = self.module.unsupported(
                case.shape, jnp.dtype(case.dtype), case.features, case.spec
            )
            assert str(raised.value) == reason
            return
        results = jax.block_until_ready(run(*arrays, **options))
        expected = getattr(Expected(case, self.sums_of_rounded), operation)()
        assert_is([results] if operation == "weight_gradient" else results, expected)

    @pytest.fixture(params=["forward", "input_gradient", "weight_gradient"])
    def operation(self, request) -> str:
        return request.param

    def test_edges(self, operation, edge, monkeypatch):
        self.check(operation, EDGES[edge], monkeypatch, quick=False)

    def test_layers(self, operation, small_layer, monkeypatch):
        self.check(operation, small_layer, monkeypatch, quick=True)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", shiftnet_a_layers())
    def test_layers_of_shiftnet_a_at_full_size(self, operation, name, monkeypatch):
        self.check(operation, shiftnet_a_layers()[name], monkeypatch, quick=True)

    def test_refuses_a_type(self, operation):
        """Only XLA has all types of floats."""
        case = replace(EDGES["one pixel"], dtype="float16")
        arrays, options = self.arguments(operation, case)
        run = partial(self.interpret, getattr(self.module, operation), case, True)
        if self.module is xla:
            results = run(*arrays, **options)
            assert jax.tree.leaves(results)[0].dtype == (
                jnp.float32 if operation == "weight_gradient" else jnp.float16
            )
            return
        reason = self.module.unsupported(
            case.shape, jnp.dtype(case.dtype), case.features, case.spec
        )
        with pytest.raises(InputError, match="takes bfloat16.*, not float16") as raised:
            run(*arrays, **options)
        assert str(raised.value) == reason


def pytest_generate_tests(metafunc):
    """Edge cases and layers, of which each backend has some in the everyday run."""
    cls = metafunc.cls

    def marks(everyday: bool):
        return () if everyday else pytest.mark.slow

    if "edge" in metafunc.fixturenames:
        everyday = EDGES if cls.everyday_edges is None else cls.everyday_edges
        metafunc.parametrize(
            "edge", [pytest.param(name, marks=marks(name in everyday)) for name in EDGES]
        )
    if "small_layer" in metafunc.fixturenames:
        count = len(small_layers()) if cls.everyday_layers is None else cls.everyday_layers
        metafunc.parametrize(
            "small_layer",
            [
                pytest.param(case, id=key, marks=marks(i < count))
                for i, (key, case) in enumerate(small_layers().items())
            ],
        )


class TestXla(BackendTests):
    module = xla
    sums_of_rounded = True

    def interpret(self, function, case, quick, *arrays, **options):
        return jax.jit(partial(function, **options), compiler_options=FAST_COMPILE)(*arrays)


class TestPallasTpu(BackendTests):
    module = pallas_tpu
    everyday_layers = 3

    def interpret(self, function, case, quick, *arrays, **options):
        params = pltpu.InterpretParams(
            detect_races=True, uninitialized_memory="nan", num_cores_or_threads=case.cores
        )
        options |= {"cores": case.cores, "interpret": True if quick else params}
        run = jax.jit(partial(function, **options), compiler_options=FAST_COMPILE)
        if quick:
            return run(*arrays)
        try:
            results = jax.block_until_ready(run(*arrays))
            assert not tpu_interpreter.races.races_found
        finally:
            pltpu.reset_tpu_interpret_mode_state()
        return results

    def prepare(self, case, monkeypatch):
        """Makes the tiles what the case says."""
        problem = tpu_plan.Problem.of(*case.shape[1:3], case.offsets, case.stride)
        itemsize = jnp.dtype(case.dtype).itemsize
        images = 32 // itemsize
        if case.tile_rows:
            rows = case.tile_rows * problem.out_width * images
            monkeypatch.setattr(tpu_plan, "_ENOUGH_ROWS", rows)
        if case.narrow:
            # A byte less than one row takes in the operation with the fewest buffers.
            plan = tpu_plan.Plan(problem, 1, images, -(-case.shape[0] // images))
            least = tpu_plan._vmem_bytes(plan, case.features, itemsize, 2)
            monkeypatch.setattr(tpu_plan, "_VMEM_BYTES", least - 1)
        if case.pieces:
            for module in (pallas_tpu, tpu_tile):
                monkeypatch.setattr(module, "COLUMNS", 2)
                monkeypatch.setattr(module, "PRODUCT_ROWS", 64)
        for buffers in (2, 3, 4):
            plan = tpu_plan.make_plan(
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
        monkeypatch.setattr(tpu_plan, "_VMEM_BYTES", 1000)
        reason = pallas_tpu.unsupported(case.shape, jnp.dtype(case.dtype), case.features, case.spec)
        assert reason.endswith(
            "keeps rows of 1 pixels with 16 and 8 channels on the chip, which are too many: use "
            "None or 'xla'."
        )

    def test_cuts_a_wide_image_whose_offsets_reach_almost_through_it(self):
        offsets = ((0, 150), (0, 299), (0, 1000)) + ((0, 0),) * 253
        reason = pallas_tpu.unsupported((16, 1, 300, 256), jnp.bfloat16, 64, Spec(offsets))
        assert reason is None or "too many" in reason


class TestPallasGpu(BackendTests):
    module = pallas_gpu
    everyday_edges = (
        "one pixel",
        "stride 2, even",
        "33 images and everything around",
    )
    everyday_layers = 0

    def interpret(self, function, case, quick, *arrays, **options):
        params = InterpretGPUParams(detect_races=True)
        results = jax.block_until_ready(function(*arrays, interpret=params, **options))
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


# --- the TPU kernels through the public function -----------------------------------------------


def public_loss(arguments, name, **options):
    y = shift_conv(**arguments, prologue_relu=True, stride=2, implementation=name, **options)
    return jnp.sum(jnp.sin(y.astype(jnp.float32)))


def public_arrays(**more) -> dict:
    case = Case((8, 3, 4, 18), 8, (), dtype="float32", prologue="scale")
    arrays = case.arrays()
    return {key: arrays[key] for key in ("x", "w", "scale")} | more


def assert_same(function):
    """function(arguments, implementation) gives the same with the kernels and without."""
    compiled = partial(jax.jit, static_argnums=1, compiler_options=FAST_COMPILE)
    arguments = public_arrays()
    expected = compiled(function)(arguments, "xla")
    with call.INTERPRET(True):
        traced = compiled(function).trace(arguments, "pallas_tpu")
        actual = traced.lower().compile()(arguments)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), actual, expected)
    return str(traced.jaxpr)


def test_vmap_over_x_runs_the_kernels_on_one_larger_batch():
    def function(arguments, name):
        xs = arguments["x"].reshape(2, 4, *arguments["x"].shape[1:])
        arguments = {k: v for k, v in arguments.items() if k != "x"}
        one = lambda x: shift_conv(x, **arguments, implementation=name)  # noqa: E731
        return jax.vmap(one)(xs)

    assert "scan" not in assert_same(function)


def test_vmap_over_x_and_w_runs_the_kernels_one_after_the_other():
    def function(arguments, name):
        x, w = arguments["x"][:4], arguments["w"]
        pairs = jnp.stack([x, x * 2]), jnp.stack([w, w - 1])
        gradients = jax.grad(lambda x, w: public_loss({"x": x, "w": w}, name), argnums=(0, 1))
        return jax.vmap(gradients)(*pairs)

    assert "scan" in assert_same(function)


def test_remat_and_gradients_of_gradients_through_the_kernels():
    def function(arguments, name):
        layer = jax.checkpoint(partial(public_loss, name=name))

        def steepness(arguments):
            gradients = jax.grad(layer)(arguments)
            return sum(jnp.sum(g**2) * 0.01 for g in jax.tree.leaves(gradients))

        return jax.value_and_grad(steepness)(arguments)

    assert_same(function)
