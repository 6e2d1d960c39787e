"""Every backend of `shift_conv` against the definition, in one class that all of them inherit.

The TPU's and the GPU's kernels are run by JAX's interpreters on a CPU. They tell whether the
numbers are right, whether anything is read before it is written and whether two threads race;
`tpu/test_compiler.py` tells whether the TPU's compiler takes them.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from shift_jax.errors import InputError
from shift_jax.ops.fused import xla
from shift_jax.ops.fused.operands import Operands
from tests.ops.fused.cases import EDGES, Case, shiftnet_a_layers
from tests.ops.fused.definition import Expected, assert_is

# The compiler's time is most of a test's.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class BackendTests:
    """Inherited by a class for each backend; it says how to run it and what it refuses."""

    module = xla
    sums_of_rounded = False
    """Whether the statistics are those of the rounded output."""
    everyday_edges: tuple[str, ...] | None = None
    """The edge cases of the everyday run, None for all; the others are slow."""
    everyday_layers: int | None = None
    """How many layers the everyday run has, None for all; ShiftNet-A's are the first eight."""

    def interpret(self, function, case: Case, quick: bool, operands, **options):
        """Runs function(operands); `quick` without the checks of memory."""
        raise NotImplementedError

    def refused(self, case: Case) -> str | None:
        """What the sentence says if the backend cannot do it, as a regular expression."""
        return None

    def prepare(self, case: Case, monkeypatch) -> None:
        """Before anything runs."""

    def arguments(self, operation: str, case: Case) -> tuple[Operands, dict]:
        operands, options = case.operands(), {"spec": case.spec}
        if operation == "forward":
            return replace(operands, dy=None), options
        operands = replace(operands, bias=None, residual=None)
        if operation == "weight_gradient":
            return replace(operands, w=None), options
        x = operands.x if case.prologue else None
        return replace(operands, x=x), options | {"size": case.shape[1:3]}

    def check(self, operation: str, case: Case, monkeypatch, quick: bool) -> None:
        self.prepare(case, monkeypatch)
        operands, options = self.arguments(operation, case)

        def run(*arguments, **options):
            with jax.numpy_rank_promotion("raise"):
                function = getattr(self.module, operation)
                return self.interpret(function, case, quick, *arguments, **options)

        if sentence := self.refused(case):
            with pytest.raises(InputError, match=sentence) as raised:
                run(operands, **options)
            reason = self.module.unsupported(
                case.shape, jnp.dtype(case.dtype), case.features, case.spec
            )
            assert str(raised.value) == reason
            return
        results = jax.block_until_ready(run(operands, **options))
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
        operands, options = self.arguments(operation, case)
        run = partial(self.interpret, getattr(self.module, operation), case, True)
        if self.module is xla:
            results = run(operands, **options)
            assert jax.tree.leaves(results)[0].dtype == (
                jnp.float32 if operation == "weight_gradient" else jnp.float16
            )
            return
        reason = self.module.unsupported(
            case.shape, jnp.dtype(case.dtype), case.features, case.spec
        )
        with pytest.raises(InputError, match="takes bfloat16.*, not float16") as raised:
            run(operands, **options)
        assert str(raised.value) == reason
