"""Losses of face embeddings: softmax heads with and without margins, and center loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from shift_jax.config import MARGINS
from shift_jax.errors import check_choice

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int


class FaceClassifier(nn.Module):
    """An embedding network with the parts that train it: a head over identities, and their centers.

    The centers, float32 [N, D], are in the collection "batch_stats", since they follow the batches
    without a gradient, as BatchNorm's statistics do.

    Attributes:
      network: from images to embeddings [B, D].
      num_identities: N.
      center_rate: α of `moved_centers`; None for no centers.
      margin, margin_size, margin_scale: see `IdentityHead`.
    """

    network: nn.Module
    num_identities: int
    center_rate: float | None = None
    margin: str = "none"
    margin_size: float = 0.5
    margin_scale: float = 64.0

    def embed(self, images: Float[Array, "b h w c"], train: bool = False) -> Float[Array, "b d"]:
        """Returns the embeddings, float32, not normalized."""
        return self.network(images, train).astype(jnp.float32)

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], labels: Int[Array, " b"], train: bool = False
    ) -> tuple[Float[Array, "b n"], Float[Array, ""]]:
        """Returns the logits with their margin, and the center loss.

        In training it then moves the centers.
        """
        embeddings = self.embed(images, train)
        distance = jnp.zeros(())
        if self.center_rate is not None:
            shape = (self.num_identities, embeddings.shape[-1])
            centers = self.variable("batch_stats", "centers", jnp.zeros, shape)
            distance = center_loss(embeddings, labels, centers.value)
            if train and not self.is_initializing():
                centers.value = moved_centers(embeddings, labels, centers.value, self.center_rate)
        head = IdentityHead(
            self.num_identities, self.margin, self.margin_size, self.margin_scale, name="head"
        )
        return head(embeddings, labels), distance


class IdentityHead(nn.Module):
    """A layer from embeddings to logits over the identities to train on.

    Attributes:
      num_identities: N.
      margin: "none", a linear layer with bias, as in the paper; "cosface", s (cos θ - m) for the
        true identity (Wang et al., CVPR 2018, Eq. 4); or "arcface", s cos(θ + m) (Deng et al., CVPR
        2019, Eq. 3). Both give s cos θ for the other identities, where θ is the angle between the
        embedding and the weights of the identity.
      margin_size: m, in cosines or in radians.
      margin_scale: s.

    Raises:
      InputError: an unknown margin.
    """

    num_identities: int
    margin: str = "none"
    margin_size: float = 0.5
    margin_scale: float = 64.0

    @nn.compact
    def __call__(
        self, embeddings: Float[Array, "b d"], labels: Int[Array, " b"]
    ) -> Float[Array, "b n"]:
        """Returns the logits; without a margin, `labels` have no effect."""
        check_choice("margin", self.margin, MARGINS)
        shape = (embeddings.shape[-1], self.num_identities)
        kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape)
        if self.margin == "none":
            bias = self.param("bias", nn.initializers.zeros, shape[1:])
            return embeddings @ kernel + bias[None]
        cosines = normalized(embeddings) @ normalized(kernel.T).T
        smaller = cosines - self.margin_size
        if self.margin == "arcface":
            smaller = _cosines_of_larger_angles(cosines, self.margin_size)
        is_true = jax.nn.one_hot(labels, self.num_identities, dtype=bool)
        return self.margin_scale * jnp.where(is_true, smaller, cosines)


def _cosines_of_larger_angles(cosines: Float[Array, "b n"], margin: float) -> Float[Array, "b n"]:
    """Returns cos(θ + m), and cos θ - m sin m, which keeps falling, where θ + m exceeds π.

    ArcFace's own code does the same.
    """
    sines = jnp.sqrt(jnp.maximum(1 - cosines**2, 1e-12))
    larger = cosines * math.cos(margin) - sines * math.sin(margin)
    return jnp.where(cosines > -math.cos(margin), larger, cosines - margin * math.sin(margin))


def normalized(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Returns x / |x|₂ along the last axis; zeros stay zeros, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def center_loss(
    embeddings: Float[Array, "b d"], labels: Int[Array, " b"], centers: Float[Array, "n d"]
) -> Float[Array, ""]:
    """Returns ½ mean |x_i - c_y(i)|² (Wen et al., ECCV 2016, Eq. 2, which has the sum).

    With the mean, the weight against softmax is the same for all batch sizes. Centers get no
    gradient: `moved_centers` moves them.
    """
    distances = embeddings - jax.lax.stop_gradient(centers)[labels]
    return 0.5 * (distances**2).sum(-1).mean()


def moved_centers(
    embeddings: Float[Array, "b d"],
    labels: Int[Array, " b"],
    centers: Float[Array, "n d"],
    rate: float,
) -> Float[Array, "n d"]:
    """Returns c_j - α Σ_{i: y(i) = j} (c_j - x_i) / (1 + #{i: y(i) = j}) (Wen et al., Eq. 4).

    The sums are over the global batch, also in a jit that splits it over devices.

    Args:
      embeddings: of the batch.
      labels: of the batch.
      centers: of all identities.
      rate: α, 0..1.
    """
    embeddings = jax.lax.stop_gradient(embeddings)
    counts = jnp.zeros(len(centers)).at[labels].add(1.0)[:, None]
    sums = jnp.zeros_like(centers).at[labels].add(embeddings)
    return centers - rate * (counts * centers - sums) / (1 + counts)
