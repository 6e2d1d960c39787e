from functools import partial

import jax

from shift_jax.ops.fused import xla
from tests.ops.fused.backend_tests import FAST_COMPILE, BackendTests
from tests.ops.fused.cases import small_layers
from tests.ops.fused.networks import layers


class TestXla(BackendTests):
    module = xla
    sums_of_rounded = True

    def interpret(self, function, case, quick, operands, **options):
        return jax.jit(partial(function, **options), compiler_options=FAST_COMPILE)(operands)


def test_the_networks_have_the_layers_of_the_paper():
    # Middle channels and features of ShiftNet-A's groups, expansions 4, 4, 3 and 2 (Table 8).
    keys = [(key[2], key[3], key[4].stride) for key in layers("shiftnet_a")]
    assert (128, 32, 2) in keys and (256, 64, 1) in keys and (512, 512, 1) in keys
    assert {size[2] for size in layers("shiftresnet20", expansion=9)} >= {144, 288, 576}
    assert len(small_layers()) > 30
