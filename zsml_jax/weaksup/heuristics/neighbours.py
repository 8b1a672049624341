"""k-nearest-neighbour heuristics on few features: the class shares among the nearest labelled examples."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array


@flax.struct.dataclass
class Neighbours:
    """One classifier for each of h sets of c features, a pytree.

    Attributes:
      feature: the columns that each reads, ``(h, c)``.
      points: the labelled examples, ``(n, d)``.
      labels: their classes one-hot, for each classifier, ``(h, n, k)``; a row of zeros is left out.
      count: how many neighbours are asked.
    """

    feature: Int[AnyArray, "*batch h c"]
    points: Float[AnyArray, "*batch n d"]
    labels: Float[AnyArray, "*batch h n k"]
    count: int = flax.struct.field(pytree_node=False)

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n h k"]:
        """Returns the share of each class among the nearest points, of equally far ones the first."""
        x, points = jnp.asarray(features), jnp.asarray(self.points)

        def one(classifier: tuple[Array, Array]) -> Array:
            columns, labels = classifier
            present = labels.sum(axis=1) > 0
            squares = ((x[:, None, columns] - points[None][:, :, columns]) ** 2).sum(axis=-1)
            _, nearest = jax.lax.top_k(-jnp.where(present, squares, jnp.inf), self.count)
            # Where fewer are left than are asked, the rest are rows of zeros.
            votes = labels[nearest].sum(axis=1)
            return votes / jnp.maximum(votes.sum(axis=1, keepdims=True), 1)

        return jax.lax.map(one, (jnp.asarray(self.feature), jnp.asarray(self.labels))).transpose(1, 0, 2)


def fit(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    k: int,
    combinations: Int[AnyArray, "h c"],
    *,
    count: int = 5,
) -> Neighbours:
    """Keeps the labelled examples.

    Args:
      features: one row an example.
      labels: class indices.
      weights: zero leaves an example out; other weights count alike.
      k: the number of classes.
      combinations: the columns that each classifier reads.
      count: how many neighbours are asked, at most the number of examples.

    Returns:
      The classifiers.
    """
    one_hot = jax.nn.one_hot(labels, k, dtype=features.dtype) * (weights > 0)[:, None]
    columns = jnp.asarray(combinations)
    each = jnp.broadcast_to(one_hot, (len(columns), *one_hot.shape))
    return Neighbours(columns, features, each, min(count, features.shape[0]))
