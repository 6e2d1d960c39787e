import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.counting import count_macs, count_parameters
from shift_jax.errors import InputError
from shift_jax.ops import allocate_offsets, shift_offsets
from shift_jax.paper.figures.contributions import channel_contributions
from tests.models.small import quick_jit, random_variables

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)


def one_block_a_group(name, **arguments):
    """A network of all its kinds of block, shallow enough to compile in a second."""
    return create_model(name, **arguments).clone(blocks_per_group=1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet20", {"reduction": "module", "expansion": 3}),
        ("resnet20", {"reduction": "net", "factor": 4, "dtype": jnp.bfloat16}),
        ("shiftresnet20", {"expansion": 0.5}),
        ("shiftresnet20", {"expansion": 3, "dtype": jnp.bfloat16}),
        ("shiftresnet20", {"module": "sc2", "order": "interleaved", "kernel_size": 5}),
        ("depthwiseresnet20", {"expansion": 2}),
    ],
)
def test_forward_and_gradient_are_finite(name, arguments):
    model = one_block_a_group(name, num_classes=5, **arguments)
    variables = random_variables(model, (8, 8, 3))

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
        )
        return jax.nn.logsumexp(logits, axis=-1).sum() - logits[0, 0] - logits[1, 1]

    value, gradient = quick_jit(jax.value_and_grad(loss))(variables["params"])
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.asarray(leaf).any(), f"no gradient reaches {path}"


def test_net_wise_widths():
    """Table 2's ResNet110-1 is widths (5, 11, 22)."""
    widths = {
        expansion: create_model("resnet110", reduction="net", expansion=expansion).widths
        for expansion in (1, 3, 6, 9)
    }
    assert widths == {1: (5, 11, 22), 3: (9, 19, 38), 6: (13, 26, 53), 9: (16, 32, 64)}


def test_logits_do_not_depend_on_the_channel_order():
    """Eq. 9 for a whole network: permute each module's channels together with its weights."""
    grouped = one_block_a_group("shiftresnet20", expansion=3)
    interleaved = one_block_a_group("shiftresnet20", expansion=3, order="interleaved")
    variables = random_variables(grouped, (8, 8, 3))

    def to_interleaved(channels):
        """For each interleaved channel a grouped one of the same direction."""
        by_direction = {}
        for channel, offset in enumerate(shift_offsets(channels).tolist()):
            by_direction.setdefault(tuple(offset), []).append(channel)
        target = shift_offsets(channels, order="interleaved").tolist()
        return np.asarray([by_direction[tuple(offset)].pop(0) for offset in target])

    permuted = jax.tree.map(lambda leaf: leaf, variables)
    for block in (name for name in permuted["params"] if name.startswith("group")):
        params, stats = permuted["params"][block], permuted["batch_stats"][block]
        order = to_interleaved(params["conv1"]["kernel"].shape[1])
        params["conv1"]["kernel"] = params["conv1"]["kernel"][:, order]
        params["norm1"] = {key: value[order] for key, value in params["norm1"].items()}
        stats["norm1"] = {key: value[order] for key, value in stats["norm1"].items()}
        params["conv2"]["kernel"] = params["conv2"]["kernel"][order]

    expected = quick_jit(grouped.apply)(variables, IMAGES)
    logits = quick_jit(interleaved.apply)(permuted, IMAGES)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    unpermuted = quick_jit(interleaved.apply)(variables, IMAGES)
    assert not np.allclose(unpermuted, expected, rtol=1e-2, atol=1e-2)


def test_early_shortcut_is_reachable_by_name():
    shapes = jax.eval_shape(
        lambda: create_model("resnet20_projection", reduction="module", expansion=1).init(
            jax.random.key(0), IMAGES
        )
    )
    blocks = [block for name, block in shapes["params"].items() if name.startswith("group")]
    assert len(blocks) == 9 and all("conv_shortcut" in block for block in blocks)


CROSS = (0, 1, 0, 1, 1, 1, 0, 1, 0)


def test_allocations_have_the_size_of_the_uniform_one():
    uniform = one_block_a_group("shiftresnet20", expansion=3)
    allocated = one_block_a_group("shiftresnet20", expansion=3, direction_weights=CROSS)
    for count in (count_parameters, count_macs):
        assert count(allocated, (32, 32, 3)) == count(uniform, (32, 32, 3))
    variables = random_variables(uniform, (8, 8, 3))
    different = quick_jit(allocated.apply)(variables, IMAGES)
    assert not np.allclose(different, quick_jit(uniform.apply)(variables, IMAGES), atol=1e-2)


def test_an_allocation_may_come_from_a_json_config():
    config = {"expansion": 3, "direction_weights": CROSS}
    stored = json.loads(json.dumps(config))  # With a list.
    first, second = (one_block_a_group("shiftresnet20", **each) for each in (config, stored))
    variables = random_variables(first, (8, 8, 3))
    modules = channel_contributions(first, variables, (8, 8, 3))
    assert [module.layer for module in modules] == [f"group{g}_block1/conv2" for g in (1, 2, 3)]
    for module, same in zip(
        modules, channel_contributions(second, variables, (8, 8, 3)), strict=True
    ):
        expected = allocate_offsets(len(module.norms), 3, CROSS)
        np.testing.assert_array_equal(module.offsets, expected)
        np.testing.assert_array_equal(same.offsets, expected)


def test_a_bad_allocation_fails_before_the_network_is_used():
    with pytest.raises(InputError, match="expected 25 numbers of 0 or more"):
        create_model("shiftresnet20", kernel_size=5, direction_weights=(1,) * 9)
    with pytest.raises(InputError, match="order is 'interleaved', but direction_weights"):
        create_model("shiftresnet20", order="interleaved", direction_weights=CROSS)
