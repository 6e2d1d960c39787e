import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from shift_jax.errors import InputError
from shift_jax.tasks.face_losses import (
    FaceClassifier,
    IdentityHead,
    center_loss,
    moved_centers,
    normalized,
)
from shift_jax.training.mesh import make_mesh
from shift_jax.training.step import init_state, make_train_step


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def literal_center_loss(x, labels, centers):
    total = 0.0
    for features, label in zip(x, labels, strict=True):
        for value, center in zip(features, centers[label], strict=True):
            total += (value - center) ** 2
    return total / 2 / len(x)


def literal_moved_centers(x, labels, centers, rate):
    """Wen et al., Algorithm 1, step 6 with Equation 4, one identity after the other."""
    moved = centers.copy()
    for j in range(len(centers)):
        numerator, count = np.zeros(centers.shape[1]), 0
        for features, label in zip(x, labels, strict=True):
            if label == j:
                numerator += centers[j] - features
                count += 1
        moved[j] = centers[j] - rate * numerator / (1 + count)
    return moved


def test_center_loss_and_the_centers_moves_are_the_papers(rng):
    x, centers = rng.normal(size=(12, 5)), rng.normal(size=(7, 5))
    labels = np.array([0, 3, 3, 3, 6, 0, 1, 1, 5, 3, 0, 6])  # 2 and 4 do not occur.
    loss = center_loss(*map(jnp.asarray, (x, labels, centers)))
    assert loss == pytest.approx(literal_center_loss(x, labels, centers), rel=1e-6)
    for rate in (0.0, 0.5, 1.0):
        moved = moved_centers(*map(jnp.asarray, (x, labels, centers)), rate)
        expected = literal_moved_centers(x, labels, centers, rate)
        np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(moved[2], centers[2], rtol=1e-6)


def test_the_gradient_pulls_embeddings_and_not_centers(rng):
    x, centers = rng.normal(size=(4, 3)), rng.normal(size=(2, 3))
    labels = np.array([0, 1, 1, 0])
    of_x, of_centers = jax.grad(center_loss, argnums=(0, 2))(
        jnp.asarray(x), jnp.asarray(labels), jnp.asarray(centers)
    )
    np.testing.assert_allclose(of_x, (x - centers[labels]) / 4, rtol=1e-5)  # Eq. 3, of the mean.
    assert not np.any(of_centers)


class TinyNet(nn.Module):
    """A linear layer and BatchNorm, whose statistics are over the whole batch too."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(6)(x.reshape(len(x), -1))
        return nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)


class CenterLearner:
    def __init__(self, num_identities=5):
        self.model = FaceClassifier(TinyNet(), num_identities, center_rate=0.5)

    def init(self, rng):
        return self.model.init(rng, jnp.zeros((1, 4, 4, 1)), jnp.zeros(1, jnp.int32))

    def loss(self, variables, batch, rng):
        (logits, center), mutated = self.model.apply(
            variables, batch["image"], batch["label"], train=True, mutable=["batch_stats"]
        )
        softmax = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()
        return softmax + 0.1 * center, (mutated["batch_stats"], {"center": center})


@pytest.fixture
def batches(rng):
    return [
        {
            "image": rng.normal(size=(32, 4, 4, 1)).astype(np.float32),
            "label": rng.integers(5, size=32).astype(np.int32),
        }
        for _ in range(3)
    ]


def run(batches, count, fsdp=1, num_identities=5):
    mesh = make_mesh(jax.devices()[:count], fsdp)
    learner, optimizer = CenterLearner(num_identities), optax.sgd(0.1, 0.9)
    state = init_state(learner, optimizer, 0, mesh)
    step = make_train_step(learner, optimizer, mesh)
    losses = []
    for batch in batches:
        state, metrics = step(state, batch)
        losses.append([float(metrics["loss"]), float(metrics["center"])])
    centers = state.batch_stats["centers"]
    assert centers.sharding.is_fully_replicated == (fsdp == 1 or num_identities == 5)
    return jax.device_get((state.params, state.batch_stats)), losses


def test_eight_devices_learn_what_one_does(batches):
    one, losses = run(batches, 1)
    eight, losses_of_eight = run(batches, 8)
    np.testing.assert_allclose(losses_of_eight, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight)
    centers = one[1]["centers"]
    assert centers.shape == (5, 6) and np.abs(centers).min(axis=1).min() > 0


def test_centers_laid_over_the_devices_learn_the_same(batches):
    one, losses = run(batches, 1, num_identities=4096)
    split, losses_of_split = run(batches, 8, fsdp=4, num_identities=4096)
    np.testing.assert_allclose(losses_of_split, losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, split)


def test_a_step_moves_the_centers_by_the_whole_batch_and_evaluation_does_not(batches):
    learner = CenterLearner()
    variables = learner.init(jax.random.key(0))
    assert not variables["batch_stats"]["centers"].any()
    centers = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
    variables["batch_stats"]["centers"] = jnp.asarray(centers)
    batch = batches[0]
    _, (stats, metrics) = jax.jit(learner.loss)(variables, batch, None)

    @jax.jit
    def embed(variables, images):
        options = {"method": "embed", "mutable": ["batch_stats"]}
        return learner.model.apply(variables, images, True, **options)[0]

    embeddings = embed(variables, batch["image"])
    expected = literal_moved_centers(np.asarray(embeddings), batch["label"], centers, 0.5)
    np.testing.assert_allclose(stats["centers"], expected, rtol=1e-5, atol=1e-6)
    assert metrics["center"] == pytest.approx(
        literal_center_loss(np.asarray(embeddings), batch["label"], centers), rel=1e-5
    )
    _, unchanged = learner.model.apply(
        variables, batch["image"], batch["label"], mutable=["batch_stats"]
    )
    np.testing.assert_array_equal(unchanged["batch_stats"]["centers"], centers)


def test_without_a_rate_there_are_no_centers():
    model = FaceClassifier(TinyNet(), 5)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)), jnp.zeros(1, jnp.int32))
    assert "centers" not in variables["batch_stats"]
    assert set(variables["params"]["head"]) == {"kernel", "bias"}


def head_logits(margin, x, labels, kernel, size=0.5, scale=8.0):
    head = IdentityHead(kernel.shape[1], margin, size, scale)
    variables = {"params": {"kernel": jnp.asarray(kernel)}}
    return head.apply(variables, jnp.asarray(x), jnp.asarray(labels))


@pytest.mark.parametrize(
    ("margin", "with_margin"),
    [
        ("cosface", lambda angle: np.cos(angle) - 0.5),
        ("arcface", lambda angle: np.cos(angle + 0.5)),
    ],
)
def test_margins_are_those_of_their_papers(rng, margin, with_margin):
    x, kernel = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))
    labels = np.array([0, 1, 2, 2, 1, 0])
    logits = head_logits(margin, x, labels, kernel)
    for i, label in enumerate(labels):
        for j in range(3):
            cosine = x[i] @ kernel[:, j] / np.linalg.norm(x[i]) / np.linalg.norm(kernel[:, j])
            expected = 8 * (with_margin(np.arccos(cosine)) if j == label else cosine)
            assert logits[i, j] == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_arcface_falls_with_the_angle_up_to_the_opposite_direction():
    angles = np.linspace(0, np.pi, 400)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    logits = head_logits("arcface", x, np.zeros(400, int), np.eye(2))[:, 0]
    # At π - m the formula changes, to one that starts a little lower.
    assert np.all(np.diff(logits) < 0)
    assert head_logits("arcface", x[:1], [0], np.eye(2))[0, 0] == pytest.approx(8 * np.cos(0.5))


@pytest.mark.parametrize("margin", ["cosface", "arcface"])
@pytest.mark.parametrize("x", [[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 0.0]], [[1e-30, 0.0]]])
def test_gradients_are_finite_at_the_ends(margin, x):
    gradient = jax.grad(lambda x: head_logits(margin, x, [0], np.eye(2)).sum())(jnp.asarray(x))
    assert np.isfinite(gradient).all()


def test_normalized_has_length_one():
    np.testing.assert_allclose(
        normalized(jnp.asarray([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]]
    )


def test_an_unknown_margin_is_refused():
    with pytest.raises(InputError, match="margin is 'sphereface', expected 'none', 'cosface' or"):
        head_logits("sphereface", [[1.0, 0.0]], [0], np.eye(2))


@pytest.mark.parametrize("margin", ["none", "cosface", "arcface"])
def test_no_rank_is_promoted(margin, strict_jax):
    model = FaceClassifier(TinyNet(), 5, center_rate=0.5, margin=margin)
    arguments = (np.ones((4, 4, 4, 1), np.float32), np.arange(4))

    def loss(variables):
        (logits, center), updates = model.apply(
            variables, *arguments, train=True, mutable=["batch_stats"]
        )
        return logits.sum() + center, updates

    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))
    jax.eval_shape(jax.grad(loss, has_aux=True), variables)
