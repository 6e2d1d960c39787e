import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from shift_jax import create_model
from shift_jax.counting import count_macs, count_parameters
from shift_jax.errors import InputError
from shift_jax.layers import CSC
from shift_jax.paper.tables.paper_macs import paper_cifar_macs

CIFAR = (32, 32, 3)

# Model, arguments, parameters for 10 and 100 classes, true MACs, the paper's counter.
ROWS = [
    ("resnet20", {}, 272474, 278324, 40813184, 66781184),
    ("shiftresnet20", {"expansion": 1}, 34906, 40756, 5948032, 12255232),
    ("shiftresnet20", {"expansion": 3}, 95642, 101492, 16433792, 25886720),
    ("shiftresnet20", {"expansion": 6}, 186746, 192596, 32162432, 46333952),
    ("shiftresnet20", {"expansion": 9}, 277850, 283700, 47891072, 66781184),
    ("resnet56", {}, 855770, 861620, 125747840, 151715840),
    ("shiftresnet56", {"expansion": 1}, 102106, 107956, 15385216, 21692416),
    ("shiftresnet56", {"expansion": 3}, 294554, 300404, 44745344, 54198272),
    ("shiftresnet56", {"expansion": 6}, 583226, 589076, 88785536, 102957056),
    ("shiftresnet56", {"expansion": 9}, 871898, 877748, 132825728, 151715840),
    ("resnet110", {}, 1730714, 1736564, 253149824, 279117824),
    ("shiftresnet110", {"expansion": 1}, 202906, 208756, 29540992, 35848192),
    ("shiftresnet110", {"expansion": 3}, 592922, 598772, 87212672, 96665600),
    ("shiftresnet110", {"expansion": 6}, 1177946, 1183796, 173720192, 187891712),
    ("shiftresnet110", {"expansion": 9}, 1762970, 1768820, 260227712, 279117824),
]

REDUCED = [
    ("resnet20", {"reduction": "module", "expansion": 1}, 24458),
    ("resnet20", {"reduction": "module", "expansion": 3}, 82634),
    ("resnet20", {"reduction": "module", "expansion": 6}, 171998),
    ("resnet56", {"reduction": "module", "expansion": 1}, 59000),
    ("resnet56", {"reduction": "module", "expansion": 3}, 253706),
    ("resnet56", {"reduction": "module", "expansion": 6}, 537062),
    ("resnet110", {"reduction": "module", "expansion": 1}, 115574),
    ("resnet110", {"reduction": "module", "expansion": 3}, 510314),
    ("resnet110", {"reduction": "module", "expansion": 6}, 1084658),
    ("resnet20_projection", {"reduction": "module", "expansion": 1}, 35946),
    ("resnet20_projection", {"reduction": "module", "expansion": 3}, 94122),
    ("resnet20_projection", {"reduction": "module", "expansion": 6}, 183486),
    ("resnet56_projection", {"reduction": "module", "expansion": 1}, 104088),
    ("resnet56_projection", {"reduction": "module", "expansion": 3}, 298794),
    ("resnet56_projection", {"reduction": "module", "expansion": 6}, 582150),
    ("resnet110_projection", {"reduction": "module", "expansion": 1}, 211062),
    ("resnet110_projection", {"reduction": "module", "expansion": 3}, 605802),
    ("resnet110_projection", {"reduction": "module", "expansion": 6}, 1180146),
    ("resnet20_projection", {"reduction": "module", "factor": 12}, 35946),
    ("resnet110", {"reduction": "net", "expansion": 1}, 204822),
    ("resnet20", {"reduction": "module", "expansion": 9}, 272474),
    ("depthwiseresnet20", {"expansion": 1}, 38602),
]


def quick(rows):
    """The deepest networks take seconds each."""
    return [pytest.param(*row, marks=pytest.mark.slow) if "110" in row[0] else row for row in rows]


@pytest.mark.parametrize(("name", "arguments", "ten", "hundred", "macs", "paper_macs"), quick(ROWS))
def test_every_row_of_table_5(name, arguments, ten, hundred, macs, paper_macs):
    model = create_model(name, num_classes=10, **arguments)
    assert count_parameters(model, CIFAR) == ten
    assert count_parameters(create_model(name, num_classes=100, **arguments), CIFAR) == hundred
    assert count_macs(model, CIFAR) == macs
    assert paper_cifar_macs(model) == paper_macs


@pytest.mark.parametrize(("name", "arguments", "parameters"), quick(REDUCED))
def test_reduced_resnets(name, arguments, parameters):
    assert count_parameters(create_model(name, **arguments), CIFAR) == parameters


def test_variables_are_counted_as_their_network_is():
    model = create_model("shiftresnet20", num_classes=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *CIFAR)))
    assert count_parameters(shapes) == count_parameters(model, CIFAR) == 34906
    assert count_parameters({"batch_stats": shapes["batch_stats"]}) == 0
    with pytest.raises(InputError, match="needs the image_shape of a CifarNet"):
        count_parameters(model)


def test_sc2_costs_what_csc_costs():
    csc, sc2 = (create_model("shiftresnet20", expansion=3, module=m) for m in ("csc", "sc2"))
    assert count_parameters(sc2, CIFAR) == count_parameters(csc, CIFAR)
    assert count_macs(sc2, CIFAR) == count_macs(csc, CIFAR)


class Own(nn.Module):
    """A user's network: convolutions, a module of ours, a scan, remat and a matrix product."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), strides=2, feature_group_count=1)(x)
        x = nn.Conv(8, (5, 5), feature_group_count=8)(x)
        x = nn.remat(CSC)(features=8, expansion=2)(x)
        kernel = self.param("kernel", nn.initializers.normal(), (8, 8))
        x, _ = jax.lax.scan(lambda x, _: (x @ kernel, None), x, length=5)
        return nn.Dense(3)(jax.jit(jnp.mean, static_argnums=1)(x, (1, 2)))


def test_a_users_network_is_counted():
    pixels = 8 * 8
    expected = pixels * (27 * 8 + 25 * 8 + 2 * 8 * 16 + 5 * 64) + 24
    assert count_macs(Own(), (16, 16, 3)) == expected


def test_a_transposed_convolution_multiplies_no_zeros():
    layer = nn.ConvTranspose(4, (2, 2), (2, 2))
    assert count_macs(layer, (16, 16, 8)) == 16 * 16 * 2 * 2 * 8 * 4


class Looping(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ jnp.ones((3, 3)), x)


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(InputError, match="inside a while loop"):
        count_macs(Looping(), (4, 4, 3))


def test_the_papers_counter_is_for_its_cifar_networks():
    with pytest.raises(InputError, match="not for Own: use count_macs"):
        paper_cifar_macs(Own())
