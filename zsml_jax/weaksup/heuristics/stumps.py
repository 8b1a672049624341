r"""Decision stumps in closed form: every threshold of every feature in one pass.

A stump splits one feature at a threshold and gives each side its class frequencies. Each feature is sorted once;
cumulative class counts then say, for every threshold at once, how pure both sides are. Thresholds lie halfway between
neighbouring values, and the one with the least Gini impurity is taken, the first of equals, as in a decision tree of
depth one (Breiman et al., 1984).
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array


@flax.struct.dataclass
class Stumps:
    """One stump for each of h features, a pytree.

    Attributes:
      feature: the column that each reads, ``(h,)``.
      threshold: a value at most this large goes to the left side, ``(h,)``.
      left: the class frequencies on the left side, ``(h, k)``.
      right: those on the right side.
    """

    feature: Int[AnyArray, "*batch h"]
    threshold: Float[AnyArray, "*batch h"]
    left: Float[AnyArray, "*batch h k"]
    right: Float[AnyArray, "*batch h k"]

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n h k"]:
        """Returns the class probabilities of each example by each stump."""
        on_left = jnp.asarray(features)[:, self.feature] <= self.threshold
        return jnp.where(on_left[:, :, None], self.left, self.right)


def fit(features: Float[Array, "n d"], labels: Int[Array, " n"], weights: Float[Array, " n"], k: int) -> Stumps:
    """Fits the best stump of every feature.

    Args:
      features: one row an example.
      labels: class indices.
      weights: of each example, zero to leave it out.
      k: the number of classes.

    Returns:
      d stumps. A feature with one value only gives the same frequencies to both sides.
    """
    classes = jax.nn.one_hot(labels, k, dtype=features.dtype) * weights[:, None]
    feature = jnp.arange(features.shape[1])
    return Stumps(feature, *jax.vmap(_best_split, in_axes=(1, None, None))(features, classes, weights > 0))


def _best_split(values: Array, classes: Array, present: Array) -> tuple[Array, Array, Array]:
    # What is left out comes last and has no weight, so that it neither splits nor counts.
    order = jnp.argsort(jnp.where(present, values, jnp.inf))
    values, classes, present = values[order], classes[order], present[order]
    below = jnp.cumsum(classes, axis=0)
    whole = below[-1]
    left, right = below[:-1], whole - below[:-1]
    left_size, right_size = left.sum(axis=1), right.sum(axis=1)
    # The weighted Gini impurity is one less the sum of squares over sizes, up to constants.
    purity = (left**2).sum(axis=1) / jnp.maximum(left_size, 1e-12) + (right**2).sum(axis=1) / jnp.maximum(
        right_size, 1e-12
    )
    splits = (values[1:] > values[:-1] + 1e-7) & present[1:]
    best = jnp.argmax(jnp.where(splits, purity, -1.0))
    middle = values[best] + (values[best + 1] - values[best]) / 2
    any_split = splits.any()
    frequencies = lambda counts: counts / jnp.maximum(counts.sum(), 1e-12)
    threshold = jnp.where(any_split, middle, jnp.inf)
    side = lambda counts: frequencies(jnp.where(any_split, counts, whole))
    return threshold, side(left[best]), side(right[best])
