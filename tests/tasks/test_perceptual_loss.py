"""The perceptual loss against literal loops of its formulas, and against PyTorch where it is."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.models.vgg_features import VggFeatures
from shift_jax.tasks.perceptual_loss import (
    STYLE_LAYERS,
    PerceptualLoss,
    content_loss,
    gram_matrix,
    style_loss,
    style_targets,
    total_variation,
    vgg_features,
)

features_of = jax.jit(vgg_features, static_argnames="layers")
loss_of = jax.jit(PerceptualLoss.__call__)
# Three blocks of a VGG-16 with few filters.
CONVOLUTIONS = (("1_1", 4), ("1_2", 5), ("2_1", 6), ("2_2", 7), ("3_1", 5))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def vgg(rng):
    kernels, channels = {}, 3
    for layer, width in CONVOLUTIONS:
        kernel = rng.normal(size=(3, 3, channels, width), scale=(2 / 9 / channels) ** 0.5)
        bias = rng.normal(size=width, scale=0.1)
        name = "block{}_conv{}".format(*layer.split("_"))
        kernels[name] = kernel.astype(np.float32), bias.astype(np.float32)
        channels = width
    mean, std = np.float32([123.7, 116.3, 103.5]), np.float32([58.4, 57.1, 57.4])
    return VggFeatures(kernels, mean, std, 16)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (2, 7, 10, 3)).astype(np.uint8)


@pytest.fixture
def targets(rng):
    return {layer: rng.normal(size=(5, 5)).astype(np.float32) for layer in ("relu1_2", "relu3_1")}


def literal_convolution(x, kernel, bias):
    height, width = x.shape[:2]
    y = np.zeros((height, width, len(bias)))
    for row, column, output in np.ndindex(y.shape):
        total = bias[output]
        for i, j in itertools.product(range(3), range(3)):
            if 0 <= row + i - 1 < height and 0 <= column + j - 1 < width:
                total += x[row + i - 1, column + j - 1] @ kernel[i, j, :, output]
        y[row, column, output] = max(total, 0)
    return y


def literal_pooling(x):
    y = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    for row, column, channel in np.ndindex(y.shape):
        y[row, column, channel] = x[
            2 * row : 2 * row + 2, 2 * column : 2 * column + 2, channel
        ].max()
    return y


def literal_features(vgg, image):
    x, found = (image.astype(np.float64) - vgg.mean) / vgg.std, {}
    for layer, _ in CONVOLUTIONS:
        if layer in ("2_1", "3_1"):
            x = literal_pooling(x)
        x = literal_convolution(x, *vgg.kernels["block{}_conv{}".format(*layer.split("_"))])
        found[f"relu{layer}"] = x
    return found


def literal_gram(features):
    height, width, channels = features.shape
    gram = np.zeros((channels, channels))
    for c, d in np.ndindex(gram.shape):
        for row, column in np.ndindex(height, width):
            gram[c, d] += features[row, column, c] * features[row, column, d]
    return gram / (channels * height * width)


def literal_mse(a, b):
    total = 0.0
    for x, y in zip(np.ravel(a), np.ravel(b), strict=True):
        total += (float(x) - float(y)) ** 2
    return total / np.size(a)


def literal_total_variation(images):
    down, right = [], []
    for image in images.astype(np.float64):
        for row, column, channel in np.ndindex(image.shape):
            if row:
                down.append((image[row, column, channel] - image[row - 1, column, channel]) ** 2)
            if column:
                right.append((image[row, column, channel] - image[row, column - 1, channel]) ** 2)
    return np.mean(down) + np.mean(right)


def test_features_are_those_of_literal_loops(vgg, images):
    layers = ("relu3_1", "relu1_2", "relu2_2")
    found = features_of(vgg, images, layers)
    assert list(found) == ["relu1_2", "relu2_2", "relu3_1"]
    for index, image in enumerate(images):
        expected = literal_features(vgg, image)
        for layer in layers:
            assert found[layer].dtype == jnp.float32
            np.testing.assert_allclose(found[layer][index], expected[layer], atol=1e-5)
            assert (expected[layer] > 0).any() and (expected[layer] == 0).any()


def test_features_are_those_of_pytorch(vgg, images):
    torch = pytest.importorskip("torch")
    found = features_of(vgg, images, vgg.layers)
    x = torch.tensor(((images - vgg.mean) / vgg.std).transpose(0, 3, 1, 2), dtype=torch.float32)
    for layer, (kernel, bias) in zip(vgg.layers, vgg.kernels.values(), strict=True):
        if layer in ("relu2_1", "relu3_1"):
            x = torch.nn.functional.max_pool2d(x, 2)
        weight = torch.tensor(kernel.transpose(3, 2, 0, 1))
        x = torch.nn.functional.conv2d(x, weight, torch.tensor(bias), padding=1).relu()
        np.testing.assert_allclose(found[layer], x.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_nothing_deeper_than_the_layers_is_computed(vgg, images):
    def convolutions(layers):
        jaxpr = jax.make_jaxpr(lambda vgg, x: vgg_features(vgg, x, layers))(vgg, images)
        return str(jaxpr).count("conv_general_dilated[")

    assert [convolutions(x) for x in (["relu1_1"], ["relu2_1", "relu1_2"], ["relu3_1"])] == [
        1,
        3,
        5,
    ]


def test_gram_matrix_is_that_of_literal_loops(rng):
    features = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = [literal_gram(image) for image in features]
    np.testing.assert_allclose(gram_matrix(features), expected, rtol=1e-5, atol=1e-7)


def test_gram_matrices_are_exact_on_every_device(rng):
    """TPUs round the factors to bfloat16 unless a product asks for more."""
    jaxpr = str(jax.make_jaxpr(gram_matrix)(jnp.ones((1, 2, 2, 3))))
    assert "precision=(Precision.HIGHEST, Precision.HIGHEST)" in jaxpr


def test_losses_are_those_of_literal_loops(rng):
    a, b = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(content_loss(a, b), literal_mse(a, b), rtol=1e-5)
    features = {"relu1_2": a, "relu2_2": b[..., :3], "unused": a}
    targets = {
        name: rng.normal(size=(n, n)).astype(np.float32)
        for name, n in {"relu1_2": 5, "relu2_2": 3}.items()
    }
    expected = sum(
        literal_mse([literal_gram(x) for x in features[name]], [target] * 2)
        for name, target in targets.items()
    )
    np.testing.assert_allclose(style_loss(features, targets), expected, rtol=1e-5)


def test_total_variation_is_that_of_literal_loops(images):
    np.testing.assert_allclose(total_variation(images), literal_total_variation(images), rtol=1e-5)
    stripes = np.zeros((1, 4, 6, 3), np.uint8)
    stripes[:, ::2] = 3
    assert total_variation(stripes) == total_variation(stripes.swapaxes(1, 2)) == 9
    assert total_variation(np.full((1, 4, 6, 3), 200, np.uint8)) == 0


def test_style_targets_are_gram_matrices_of_one_image(vgg, images):
    targets = style_targets(vgg, images[0], ("relu1_2", "relu3_1"))
    features = literal_features(vgg, images[0])
    assert list(targets) == ["relu1_2", "relu3_1"]
    for layer, target in targets.items():
        np.testing.assert_allclose(target, literal_gram(features[layer]), atol=1e-5)


def literal_loss(loss, outputs, images):
    """The weighted content, style and total variation, with loops for all of it."""
    found = [literal_features(loss.vgg, image) for image in outputs]
    wanted = [literal_features(loss.vgg, image)[loss.content_layer] for image in images]
    content = literal_mse([f[loss.content_layer] for f in found], wanted)
    style = sum(
        literal_mse([literal_gram(f[layer]) for f in found], [target] * len(found))
        for layer, target in loss.targets.items()
    )
    variation = literal_total_variation(outputs)
    return {
        "content_loss": loss.content_weight * content,
        "style_loss": loss.style_weight * style,
        "tv_loss": loss.tv_weight * variation,
    }


def test_the_loss_and_its_terms(vgg, targets, images, rng):
    weights = {"content_weight": 10, "style_weight": 1e4, "tv_weight": 0.5}
    loss = PerceptualLoss(vgg=vgg, targets=targets, **weights)
    assert loss.content_layer == "relu2_2" and loss.style_layers == ("relu1_2", "relu3_1")
    outputs = (images + rng.normal(size=images.shape, scale=30)).astype(np.float32)
    total, terms = loss_of(loss, outputs, images)
    expected = literal_loss(loss, outputs, images)
    assert set(terms) == set(expected) and min(expected.values()) > 0.1
    for name, value in terms.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-4)


def test_without_total_variation_there_is_no_such_term_and_all_is_float32(vgg, targets, images):
    loss = PerceptualLoss(vgg=vgg, targets=targets)
    shapes = jax.eval_shape(loss, images.astype(jnp.bfloat16), images)
    assert set(shapes[1]) == {"content_loss", "style_loss"}
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}


def test_the_gradient_is_that_of_finite_differences(vgg, targets, images, rng):
    """It flows to the outputs; and the rest of the loss is an argument of the program."""
    weights = {"content_weight": 1, "style_weight": 100, "tv_weight": 1e-4}
    loss = PerceptualLoss(vgg=vgg, targets=targets, **weights)
    outputs = jnp.asarray(images + rng.normal(size=images.shape, scale=20), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, loss: loss(x, images)[0]))
    slope = gradient(outputs, loss)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
    direction = slope / jnp.linalg.norm(slope)
    ahead, behind = (loss_of(loss, outputs + step * direction, images)[0] for step in (0.5, -0.5))
    np.testing.assert_allclose(ahead - behind, jnp.linalg.norm(slope), rtol=0.02)


def test_weights_are_no_constants_of_the_program(vgg, targets, images):
    loss = PerceptualLoss(vgg=vgg, targets=targets)
    outputs = images.astype(np.float32)
    closed = jax.make_jaxpr(PerceptualLoss.__call__)(loss, outputs, images)
    assert closed.consts == [] and len(closed.in_avals) == len(jax.tree.leaves(loss)) + 2


def test_defaults_are_the_authors():
    fields = PerceptualLoss.__dataclass_fields__
    assert fields["content_layer"].default == "relu2_2"
    assert STYLE_LAYERS == ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    assert (fields["content_weight"].default, fields["style_weight"].default) == (1e5, 1e10)
    assert fields["tv_weight"].default == 0


def test_what_does_not_fit_is_told(vgg, images):
    with pytest.raises(InputError, match="A layer of VGG is 'relu3_3', expected .* or 'relu3_1'"):
        style_targets(vgg, images[0])
    with pytest.raises(InputError, match="at least 4 pixels"):
        vgg_features(vgg, images[:, :3], ["relu1_1", "relu3_1"])
    assert vgg_features(vgg, images[:, :4, :4], ["relu3_1"])["relu3_1"].shape == (2, 1, 1, 5)
    for image in (images[0].astype(np.float32), images, images[0, ..., :1], images[0, ..., 0]):
        with pytest.raises(
            InputError, match=r"The style image is .*, expected uint8 \[height, wid"
        ):
            style_targets(vgg, image, ["relu1_1"])


def test_no_rank_is_promoted(vgg, targets, images, strict_jax):
    loss = PerceptualLoss(vgg=vgg, targets=targets, tv_weight=1.0)
    gradient = jax.grad(PerceptualLoss.__call__, argnums=1, has_aux=True)
    jax.eval_shape(gradient, loss, images.astype(np.float32), images)
