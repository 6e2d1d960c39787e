"""Weights of PyTorch twins give the twins' outputs, through files on disk."""

import jax
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.training.runs.checkpoint_files import restore_variables
from shift_jax.training.runs.import_weights import import_weights
from tests.weights.photos import real_images

torch = pytest.importorskip("torch")

from tests.weights import torch_twins as twins  # noqa: E402

CASES = {
    "shiftresnet20": (lambda: twins.CifarNet(twins.ShiftBlock, 100), {"expansion": 3}, 32),
    "resnet20": (lambda: twins.CifarNet(twins.BasicBlock), {}, 32),
    "depthwiseresnet20": (lambda: twins.CifarNet(twins.DepthwiseBlock), {}, 32),
    "resnet50": (lambda: twins.ResNet50((16, 32, 64, 128), 20), {"width": 0.25}, 64),
    "vgg16": (lambda: twins.VGG(hidden=32, num_classes=20), {"hidden_features": 32}, 96),
    "squeezenet": (lambda: twins.SqueezeNet11(20), {"version": "1.1"}, 65),
    "style_transformer": (lambda: twins.StyleNet(), {"variant": "text"}, 44),
    "shift_style_transformer": (lambda: twins.StyleNet(shift=True), {"variant": "text"}, 44),
}


def save(twin, file):
    """As the suffixes say: a state dict by new or old PyTorch, or the authors' whole module."""
    if file.name == "module.t7":
        content = {"net": torch.nn.DataParallel(twin), "acc": 69.5, "epoch": 163}
        torch.save(content, file, _use_new_zipfile_serialization=False)
    else:
        torch.save(twin.state_dict(), file, _use_new_zipfile_serialization="old" not in file.name)


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, "state_dict.pth") for name in CASES]
    + [("shiftresnet20", "old.pth"), ("shiftresnet20", "module.t7"), ("resnet50", "module.t7")],
)
def test_outputs_are_those_of_the_twin(name, form, tmp_path):
    make, arguments, side = CASES[name]
    images = real_images(side)
    torch_images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    twin = twins.randomize(make(), torch_images)
    save(twin, tmp_path / form)
    with torch.no_grad():
        expected = twin(torch_images).numpy()
    import_weights(
        tmp_path / form, tmp_path / "run", model=name, arguments=arguments, dataset="cifar10"
    )

    variables, config = restore_variables(tmp_path / "run" / "checkpoints" / "0")
    config["model"].pop("dtype")
    if expected.ndim == 4:
        model, expected = create_model(**config["model"]), expected.transpose(0, 2, 3, 1)
    else:
        model = create_model(num_classes=expected.shape[1], **config["model"])
    outputs = jax.jit(model.apply)(variables, images)
    # Instance norms of small maps amplify rounding: PyTorch is 2.6e-4 from its own float64 there.
    atol = 1e-3 if "style" in name else 1e-4
    np.testing.assert_allclose(outputs, expected, atol=atol, rtol=0)


def test_the_order_of_the_shifts_matters(tmp_path):
    """Weights read as if they were of the paper's order give other logits."""
    images = real_images(32)
    twin = twins.CifarNet(twins.ShiftBlock)
    save(twins.randomize(twin, torch.from_numpy(images).permute(0, 3, 1, 2)), tmp_path / "x.pth")
    logits = []
    for order in ("interleaved", "grouped"):
        import_weights(
            tmp_path / "x.pth",
            tmp_path / order,
            model="shiftresnet20",
            arguments={"expansion": 3},
            shift_order=order,
        )
        variables, _ = restore_variables(tmp_path / order / "checkpoints" / "0")
        model = create_model("shiftresnet20", num_classes=10, expansion=3)
        logits.append(jax.jit(model.apply)(variables, images))
    assert not np.allclose(*logits, atol=0.1)
