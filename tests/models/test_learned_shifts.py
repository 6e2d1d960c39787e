"""Networks that learn their shifts, against the authors' code."""

import jax
import numpy as np
import pytest

from shift_jax import create_model
from tests.learned_shifts import FOUND, hashed_images, unit
from tests.models.small import quick_jit


def filled(name, shape, number, norm=False):
    """One array in the authors' order, and the values of the rule for its kind."""
    values = unit(shape, number)
    if len(shape) > 1:
        return (values * np.sqrt(3 / np.prod(shape[1:]))).astype(np.float32)
    scale, start = {"weight": (0.2, 1), "running_var": (0.5, 1), "offset": (1, 0)}.get(
        name, (0.1, 0)
    )
    return (start + scale * (abs(values) if name == "running_var" else values)).astype(np.float32)


def filled_as_resnet(model, shape):
    """Variables in the order of the deployed network's layers; BatchNorm does nothing there."""
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros(shape, np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    params, count = variables["params"], 0

    def fill(module, kind):
        nonlocal count
        if kind == "offsets":
            channels = len(module[kind])
            dx, dy = (2 * unit((channels,), count + i) for i in range(2))
            module[kind] = np.stack([dy, dx], -1).astype(np.float32)
            count += 2
            return
        if kind == "kernel":
            array = module[kind]
            order = (1, 0) if array.ndim == 2 else (3, 2, 0, 1)
            back = np.argsort(order)
            values = filled("", tuple(np.array(array.shape)[list(order)]), count)
            module[kind] = values.transpose(back)
        else:
            module[kind] = filled(
                "weight" if kind == "scale" else "bias", module[kind].shape, count
            )
        count += 1

    def fill_norm(module):
        fill(module, "scale")
        fill(module, "bias")

    fill(params["stem"], "kernel")
    for group, blocks in enumerate((1, *model.groups)):
        for index in range(1, blocks + 1):
            block = params[f"group{group}_block{index}"]
            fill_norm(block["norm1"])
            if "conv_shortcut" in block:
                fill(block["conv_shortcut"], "kernel")
            fill(block["conv1"], "kernel")
            fill_norm(block["norm2"])
            fill(block["shift"], "offsets")
            fill(block["conv2"], "kernel")
    fill_norm(params["norm"])
    fill(params["classifier"], "kernel")
    fill(params["classifier"], "bias")
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["batch_stats"]):
        leaf[:] = 1 - 1e-5 if path[-1].key == "var" else 0
    return variables


def check(logits, found):
    logits = np.asarray(logits).ravel()
    np.testing.assert_allclose(logits[:8], found["first8"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(logits[-2:], found["last2"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(
        [logits.mean(), logits.std()], [found["mean"], found["std"]], atol=2e-6
    )
    assert logits.argmax() == found["argmax"]


def test_as_resnet_is_that_of_the_authors():
    shape, model = (1, 64, 64, 3), create_model("as_resnet")
    variables = filled_as_resnet(model, shape)
    check(
        quick_jit(model.apply)(variables, hashed_images(shape)),
        FOUND["networks"]["asresnet_w32_filled_64"],
    )


def filled_fe_net(model, shape):
    """Variables in the order of the authors' state dict."""
    variables = jax.eval_shape(model.init, jax.random.key(0), np.zeros(shape, np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables)
    count = 0

    def fill_conv(module):
        nonlocal count
        *sides, inner, outer = module["kernel"].shape
        values = filled("weight", (outer, inner, *(sides or (1, 1))), count)
        module["kernel"] = values.transpose(2, 3, 1, 0).reshape(module["kernel"].shape)
        count += 1

    def fill_norm(module, averages):
        nonlocal count
        for tree, leaf, name in (
            (module, "scale", "weight"),
            (module, "bias", "bias"),
            (averages, "mean", "running_mean"),
            (averages, "var", "running_var"),
        ):
            tree[leaf] = filled(name, tree[leaf].shape, count)
            count += 1

    def fill_unit(params, averages):
        nonlocal count
        fill_conv(params["conv1"])
        fill_norm(params["norm1"], averages["norm1"])
        if "shift" in params:
            channels = (len(params["shift"]["offsets"]),)
            dy, dx = (2.4 * unit(channels, count + i) for i in range(2))
            params["shift"]["offsets"] = np.stack([dy, dx], -1).astype(np.float32)
            count += 2
        fill_conv(params["conv2"])
        fill_norm(params["norm2"], averages["norm2"])

    params, averages = variables["params"], variables["batch_stats"]
    fill_conv(params["stem"]["conv"])
    fill_norm(params["stem"]["norm"], averages["stem"]["norm"])
    for name in ("ibssl", "ibpool"):
        fill_unit(params[name], averages[name])
    for index in range(1, 6):
        block = params[f"feblock{index}"]
        for name in sorted(block, key=lambda name: not name.startswith("res")):
            fill_unit(block[name], averages[f"feblock{index}"][name])
    fill_conv(params["head"]["conv"])
    fill_norm(params["head"]["norm"], averages["head"]["norm"])
    fill_conv(params["classifier"])
    params["classifier"]["bias"] = filled("bias", params["classifier"]["bias"].shape, count)
    return variables


@pytest.mark.parametrize("side", [64, pytest.param(224, marks=pytest.mark.slow)])
def test_fe_net_is_that_of_the_authors(side):
    shape, model = (1, side, side, 3), create_model("fe_net")
    found = FOUND["networks"][f"fenet_1x_{side}"]
    variables = filled_fe_net(model, shape)
    both = [model.clone(features_only=True).apply, model.apply]
    maps, logits = quick_jit(lambda *operands: [apply(*operands) for apply in both])(
        variables, hashed_images(shape)
    )
    for each in maps:
        if each.name in found["taps"]:
            expected, planes = (
                found["taps"][each.name],
                np.asarray(each.array).transpose(0, 3, 1, 2),
            )
            np.testing.assert_allclose(planes.mean(), expected["mean"], atol=2e-6, rtol=0)
            places = planes.ravel()[[0, planes.size // 3, planes.size // 2, planes.size - 1]]
            np.testing.assert_allclose(places, expected["v"], atol=2e-5, rtol=0)
    check(logits, found)
