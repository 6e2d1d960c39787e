import os
import re

import jax
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.data.class_names import imagenet_classes
from shift_jax.data.decode.images import EncodedImage
from shift_jax.errors import InputError
from shift_jax.models.read_network import read_network
from tests.models.small import random_variables
from tests.weights.caffe_files import network

COUNT = 999.98
INSIDE = {"norm1": "scale{}", "norm2": "scale{}/1", "conv1": "conv{}/1", "conv2": "conv{}/3"}


def caffe_blobs(variables):
    """The blobs that the authors' program would save for these variables."""
    params, stats = variables["params"], variables["batch_stats"]
    blobs = {}

    def add_norm(name, params, stats):
        spread = np.sqrt(stats["var"] + 1e-5)
        blobs[f"{name}:0"] = params["scale"] / spread
        blobs[f"{name}:1"] = params["bias"] - params["scale"] * stats["mean"] / spread
        norm = name.replace("scale", "bn")
        moments = (stats["mean"] * COUNT, stats["var"] * COUNT, np.float32([COUNT]))
        blobs.update({f"{norm}:{index}": moment for index, moment in enumerate(moments)})

    blobs["conv0:0"] = params["stem"]["kernel"].transpose(3, 2, 0, 1)[:, ::-1]  # B, G, R.
    for block, leaves in params.items():
        if not block.startswith("group"):
            continue
        group, index = re.fullmatch(r"group(\d+)_block(\d+)", block).groups()
        number = "0_0" if group == "0" else f"{group}_{index}"
        for name, layer in INSIDE.items():
            if name.startswith("norm"):
                add_norm(layer.format(number), leaves[name], stats[block][name])
            else:
                kernel = leaves[name]["kernel"].transpose(3, 2, 0, 1)
                blobs[f"{layer.format(number)}:0"] = kernel
        if "conv_shortcut" in leaves:
            kernel = leaves["conv_shortcut"]["kernel"].transpose(3, 2, 0, 1)
            blobs[f"conv/shortcut{group}:0"] = kernel
        dy, dx = leaves["shift"]["offsets"].T[..., None, None, None]
        blobs[f"shift{number}/2:0"], blobs[f"shift{number}/2:1"] = dx, dy
    add_norm("scale/bnlast", params["norm"], stats["norm"])
    blobs["fc/linear:0"] = params["classifier"]["kernel"].T
    blobs["fc/linear:1"] = params["classifier"]["bias"]
    return blobs


@pytest.fixture(scope="module")
def variables():
    return random_variables(create_model("as_resnet", width=4, num_classes=7), (32, 32, 3))


@pytest.fixture
def file(variables, tmp_path):
    path = tmp_path / "w4.caffemodel"
    path.write_bytes(network(caffe_blobs(variables)))
    return path


def test_the_authors_blobs_become_our_variables(variables, file):
    read = read_network(file, "as_resnet", {"width": 4})
    assert (read.num_classes, read.image_channels) == (7, 3)
    assert jax.tree.structure(read.variables) == jax.tree.structure(variables)
    for ours, theirs in zip(*map(jax.tree.leaves, (read.variables, variables)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # B, G, R minus (103.94, 116.78, 123.68), times 0.01735.
    pixel = np.asarray([200.0, 100.0, 50.0])
    ours = (pixel / 255 - read.data["mean"]) / read.data["std"]
    np.testing.assert_allclose(ours[::-1], (pixel[::-1] - [103.94, 116.78, 123.68]) * 0.01735)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bn1_2:2": None}, "has 'scale1_2:0', but no tensor 'bn1_2:2'"),
        ({"bn1_2:2": np.ones(2)}, "'bn1_2:2' has shape (2,), not one number"),
        ({"bn1_2:2": np.zeros(1)}, "has numbers that are not finite"),
        ({"bn1_2:0": np.ones(3)}, "'bn1_2:0' has shape (3,), and 'scale1_2:0', which belongs"),
        ({"shift1_2/2:0": np.ones(3)}, "which belongs to it, (3,)"),
        ({"shift1_2/2:1": None}, "has no tensor 'shift1_2/2:offsets'"),
        ({"conv3_1/1:0": np.ones((16, 8))}, "'conv3_1/1:0' has shape (16, 8)"),
        ({"conv0:0": np.ones((4, 3, 5, 5))}, "'conv0:0' has shape (4, 3, 5, 5)"),
        ({"conv9_1/1:0": np.ones((1, 1))}, "has the tensor 'conv9_1/1:0', which the network does"),
        ({"fc/linear:1": np.ones(9)}, "'fc/linear:0' has shape (7, 32)"),
    ],
)
def test_files_that_do_not_fit(change, sentence, variables, tmp_path):
    blobs = caffe_blobs(variables)
    for name, array in change.items():
        blobs[name] = array
    path = tmp_path / "x.caffemodel"
    path.write_bytes(network({name: blob for name, blob in blobs.items() if blob is not None}))
    with pytest.raises(InputError) as refused:
        read_network(path, "as_resnet", {"width": 4})
    assert sentence in str(refused.value)


def test_the_width_and_the_model_must_be_those_of_the_file(file):
    with pytest.raises(InputError, match=r"'fc/linear:0' has shape \(7, 32\).* needs \(64, 7\)"):
        read_network(file, "as_resnet", {"width": 8})
    with pytest.raises(InputError, match="Caffe's files are read for as_resnet only, not for 'vgg"):
        read_network(file, "vgg16")
    with pytest.raises(InputError, match="does not say which network it is of"):
        read_network(file)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_the_authors_network_knows_imagenet(shared_data, train):
    """In training too, on batches of a third of the photos, their own statistics do."""
    read = read_network(
        shared_data / "weights" / "active_shift_w32.caffemodel", "as_resnet", {"width": 32}
    )
    labels = [label for label, _ in imagenet_classes()]
    photos = sorted((shared_data / "imagenet_sample").iterdir())
    pixels = np.stack([EncodedImage(p.read_bytes()).center_crop(224, 0.875) for p in photos])
    images = (pixels.astype(np.float32) / 255 - read.data["mean"]) / read.data["std"]
    expected = np.asarray([labels.index(os.path.basename(p).partition("_")[0]) for p in photos])
    model = create_model(read.model, **read.arguments)
    apply = jax.jit(
        lambda x: model.apply(read.variables, x, train=train, mutable=["batch_stats"])[0]
    )
    logits = np.concatenate(
        [apply(images[i : i + 33].astype(np.float32)) for i in range(0, 99, 33)]
    )
    best = np.argsort(-logits, axis=-1)[:, :5]
    assert (best[:, 0] == expected).mean() >= (0.66 if train else 0.7)
    assert (best == expected[:, None]).any(axis=-1).mean() >= (0.82 if train else 0.86)
