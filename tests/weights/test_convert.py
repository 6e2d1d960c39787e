import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.weights.convert import to_variables, without_shared_prefixes
from tests.models.torch_tensors import layout_of, shapes_of, torch_tensors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("layer1.0.bn1.weight"), "no tensor 'layer1.0.bn1.weight'"),
        (lambda t: t.update(extra=np.zeros(3)), "has the tensor 'extra', which the network does"),
        (
            lambda t: t.update({"conv1.weight": np.zeros((16, 1, 3, 3))}),
            r"'conv1.weight' has shape \(16, 1, 3, 3\).*needs \(3, 3, 3, 16\)",
        ),
        (
            lambda t: t.update({"linear.bias": np.zeros((10, 1))}),
            r"'linear.bias' has shape \(10, 1\), but the network needs \(10,\)",
        ),
        (lambda t: t.update({"linear.bias": np.zeros(())}), r"'linear.bias' has shape \(\)"),
        (lambda t: t.update({"bn1.bias": np.zeros(16, int)}), "'bn1.bias' is of type int64"),
        (lambda t: t.update({"bn1.bias": np.full(16, 1j)}), "'bn1.bias' is of type complex128"),
        (lambda t: t.update({"bn1.bias": np.full(16, np.nan)}), "'bn1.bias' has numbers that are"),
    ],
)
def test_tensors_that_do_not_fit(change, sentence):
    shapes, layout = shapes_of(create_model("resnet20")), layout_of("resnet20", {})
    tensors = torch_tensors(shapes, layout)
    tensors["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    to_variables(tensors, shapes, layout.tensor_layout())
    change(tensors)
    with pytest.raises(InputError, match=sentence):
        to_variables(tensors, shapes, layout.tensor_layout())


@pytest.mark.parametrize(
    ("names", "stripped"),
    [
        (["module.a.w", "module.b.w"], ["a.w", "b.w"]),
        (["model._orig_mod.module.a.w", "model._orig_mod.module.x"], ["a.w", "x"]),
        (["net.a.w", "b.w"], ["net.a.w", "b.w"]),
        (["c.a.w", "c.b.w"], ["c.a.w", "c.b.w"]),
        (["x.y.z", "x.y.u"], ["z", "u"]),
        ([], []),
    ],
)
def test_prefixes_that_all_tensors_share(names, stripped):
    found = without_shared_prefixes(dict.fromkeys(names, 0), ["a.w", "b.w", "c.a.w"])
    assert list(found) == stripped
