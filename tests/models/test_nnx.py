import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import load_pretrained
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_the_documented_way_to_flax_nnx():
    page = (REPOSITORY / "docs" / "models.md").read_text()
    (code,) = re.findall(r"## Flax NNX\n.*?```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(code, names)
    network = names["network"]

    model, variables = load_pretrained("shiftresnet20.digits")
    images = jax.random.normal(jax.random.key(0), (16, 8, 8, 1))
    expected = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(network(images), expected, atol=1e-4)

    labels = jnp.arange(16) % 10
    before = np.asarray(network.stem_norm["mean"][...])
    step = [float(names["train_step"](network, names["optimizer"], images, labels)) for _ in "abc"]
    assert step[2] < step[1] < step[0]
    assert np.abs(network.stem_norm["mean"][...] - before).max() > 0.01
