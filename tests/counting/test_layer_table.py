import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from shift_jax import create_model
from shift_jax.counting import count_macs, count_parameters, layer_table
from shift_jax.layers import CSC, ShiftConv

MODELS = [
    ("shiftresnet20", {"expansion": 3}, (32, 32, 3)),
    ("depthwiseresnet20", {}, (32, 32, 3)),
    ("resnet20", {"reduction": "module", "expansion": 1}, (32, 32, 3)),
    ("shiftnet_c", {"module": "sc2"}, (64, 64, 3)),
    ("shufflenet", {}, (64, 64, 3)),
    ("shift_style_transformer", {}, (64, 48, 3)),
]


def named(model, image_shape):
    return {row.name: row for row in layer_table(model, image_shape)}


@pytest.mark.parametrize(("name", "arguments", "image_shape"), MODELS)
def test_layers_add_up(name, arguments, image_shape):
    model = create_model(name, **arguments)
    rows = layer_table(model, image_shape)
    assert sum(row.params for row in rows) == count_parameters(model, image_shape)
    assert sum(row.macs for row in rows) == count_macs(model, image_shape) > 0
    assert len({row.name for row in rows}) == len(rows)


def test_rows_of_a_known_network():
    rows = layer_table(create_model("shiftresnet20", expansion=3), (32, 32, 3))
    first = [(row.name, row.kind, row.output_shape, row.params, row.macs) for row in rows[:4]]
    assert first == [
        ("stem", "Conv", (32, 32, 16), 27 * 16, 27 * 16 * 32 * 32),
        ("stem_norm", "BatchNorm", (32, 32, 16), 32, 0),
        ("group1_block1/conv1", "ShiftConv", (32, 32, 48), 16 * 48, 16 * 48 * 32 * 32),
        ("group1_block1/norm1", "BatchNorm", (32, 32, 48), 96, 0),
    ]
    assert rows[-1].name == "classifier"
    assert rows[0].activation_bytes == 4 * 32 * 32 * (3 + 16)
    assert rows[1].intensity is None


def eq4(m, n, d_f, d_k):
    """Standard convolution: paper.md §4."""
    return m * n * d_f**2 * d_k**2 / (d_f**2 * (m + n) + d_k**2 * m * n)


def eq5(m, d_f, d_k):
    """Depthwise convolution: paper.md §4."""
    return m * d_f**2 * d_k**2 / (2 * d_f**2 * m + d_k**2 * m)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("m", "n", "d_f", "d_k"), [(16, 24, 8, 3), (3, 5, 9, 7), (64, 64, 7, 1)])
def test_intensity_is_eq_4_and_eq_5(m, n, d_f, d_k, bias):
    standard = layer_table(nn.Conv(n, (d_k, d_k), use_bias=bias), (d_f, d_f, m))
    assert [row.intensity for row in standard] == [eq4(m, n, d_f, d_k)]
    depthwise = nn.Conv(m, (d_k, d_k), use_bias=bias, feature_group_count=m)
    assert [row.intensity for row in layer_table(depthwise, (d_f, d_f, m))] == [eq5(m, d_f, d_k)]
    # The shift moves nothing of its own: as a 1×1 convolution.
    shifted = layer_table(ShiftConv(n, kernel_size=3, use_bias=bias), (d_f, d_f, m))
    assert [row.intensity for row in shifted] == [eq4(m, n, d_f, 1)]


def test_activations_have_the_computations_type():
    rows = named(create_model("shiftresnet20", dtype=jnp.bfloat16), (32, 32, 3))
    assert rows["group1_block1/conv1"].activation_bytes == 2 * 32 * 32 * (16 + 16)
    # The image comes in float32.
    assert rows["stem"].activation_bytes == 32 * 32 * (4 * 3 + 2 * 16)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        query, key = nn.Dense(4, name="query")(x), nn.Dense(4, name="key")(x)
        weights = jnp.einsum("bqc,bkc->bqk", query, key)
        return jnp.einsum("bqk,bkc->bqc", weights, x)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(8, name="dense")(x), None


@jax.custom_vjp
def product(x, kernel):
    return x @ kernel


product.defvjp(
    lambda x, kernel: (product(x, kernel), (x, kernel)), lambda r, g: (g @ r[1].T, r[0].T @ g)
)


class Unused(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.param("table", lambda key: {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros(4)}})
        return x


class Own(nn.Module):
    """What a user may write; `__call__` takes no `train`."""

    def setup(self):
        self.first = nn.Conv(8, (3, 3), strides=2)
        self.csc = nn.remat(CSC)(features=8, expansion=2)
        self.jitted = nn.jit(nn.Dense)(8)
        self.jitted_too = nn.jit(nn.Dense)(8)
        self.scanned = nn.scan(
            Step, variable_axes={"params": 0}, split_rngs={"params": True}, length=5
        )()
        self.mapped = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=1,
            out_axes=1,
        )(8)
        self.attention = Attention()
        self.unused = Unused()
        self.kernel = self.param("kernel", nn.initializers.normal(), (8, 8))

    def tail(self, x):
        return self.attention(x)

    def __call__(self, x):
        if self.is_initializing():
            self.unused(x)
        x = self.csc(self.first(x))
        x = self.jitted_too(self.jitted(x))
        x, _ = self.scanned(x, None)
        x = self.mapped(x)
        x, _ = jax.lax.scan(lambda x, _: (x @ self.kernel, None), x, length=3)
        x = jax.jit(lambda x: product(jax.nn.relu(x), self.kernel))(x)
        return self.tail(x.reshape(x.shape[0], -1, 8))


def test_a_users_network_of_every_transformation():
    model, image_shape, pixels = Own(), (16, 16, 3), 64
    rows = named(model, image_shape)
    dense = 8 * 8 * pixels
    macs = {
        "first": 27 * 8 * pixels,
        "csc/conv1": 8 * 16 * pixels,
        "csc/conv2": 16 * 8 * pixels,
        "jitted": dense,
        "jitted_too": dense,
        "scanned/dense": 5 * dense,
        "mapped": dense,
        ".": (3 + 1) * dense,
        "attention": pixels * pixels * (4 + 8),
        "attention/query": 8 * 4 * pixels,
        "attention/key": 8 * 4 * pixels,
    }
    assert {name: row.macs for name, row in rows.items() if row.macs} == macs
    params = {name: row.params for name, row in rows.items() if row.params}
    assert params == {
        "first": 27 * 8 + 8,
        "csc/conv1": 128,
        "csc/norm1": 32,
        "csc/conv2": 128,
        "csc/norm2": 16,
        "jitted": 72,
        "jitted_too": 72,
        "scanned/dense": 5 * 72,
        "mapped": 8 * 72,
        ".": 64,
        "attention/query": 36,
        "attention/key": 36,
        "unused": 10,
    }
    assert sum(params.values()) == count_parameters(model, image_shape)
    assert sum(macs.values()) == count_macs(model, image_shape)
    order = [name for name in rows if name in macs]
    assert order == [*list(macs)[:8], "attention/query", "attention/key", "attention"]
    assert rows["scanned/dense"].activation_bytes == 5 * 4 * pixels * 16
    assert rows["scanned/dense"].intensity == 5 * dense / (5 * pixels * 16 + 5 * 64)
    assert rows["mapped"].activation_bytes == 4 * pixels * 16
    assert rows["attention"].output_shape == (pixels, 8)
    assert rows["unused"].output_shape is None
    assert (rows["csc/conv1"].kind, rows["attention"].kind) == ("ShiftConv", "Attention")


def test_of_a_conds_branches_the_costliest_counts():
    class Branches(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Dense(8, name="dense")(x)
            square = lambda x: x @ jnp.ones((8, 8))  # noqa: E731
            return jax.lax.cond(x.sum() > 0, lambda x: square(square(x)), square, x)

    assert {name: row.macs for name, row in named(Branches(), (2, 2, 3)).items()} == {
        "dense": 4 * 24,
        ".": 2 * 4 * 64,
    }


def test_a_network_without_parameters():
    class Mean(nn.Module):
        def __call__(self, x):
            return x.mean((1, 2))

    assert layer_table(Mean(), (4, 4, 3)) == []
    assert count_parameters(Mean(), (4, 4, 3)) == count_macs(Mean(), (4, 4, 3)) == 0
