import jax
import numpy as np
import pytest

from shift_jax.layers import he_init, pytorch_bias_init, pytorch_init


def test_initializers_have_their_spread():
    key = jax.random.key(0)
    he = he_init(key, (3, 3, 50, 400))
    assert np.std(he) == pytest.approx((2 / 450) ** 0.5, rel=0.02)
    torch_kernel = np.asarray(pytorch_init(key, (3, 3, 50, 400)))
    assert np.abs(torch_kernel).max() == pytest.approx(450**-0.5, rel=1e-3)
    assert torch_kernel.std() == pytest.approx((1 / 3 / 450) ** 0.5, rel=0.02)
    torch_bias = np.asarray(pytorch_bias_init(64)(key, (4000,)))
    assert np.abs(torch_bias).max() == pytest.approx(1 / 8, rel=1e-2)
    assert torch_bias.min() < -0.12
