"""Outputs are those that PyTorch computed from descriptions of the networks, ReLU by ReLU."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.small import (
    quick_jit,
    random_images,
    random_variables,
    small_model,
    small_shape,
)

OUTPUTS = json.loads((Path(__file__).parent / "torch_outputs.json").read_text())


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_those_of_pytorch(name):
    model, expected = small_model(name), np.asarray(OUTPUTS[name])
    variables = random_variables(model, small_shape(name))
    outputs = quick_jit(model.apply)(variables, random_images(small_shape(name)))
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
