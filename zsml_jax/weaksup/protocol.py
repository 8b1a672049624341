"""The benchmark's protocol: the labelled sample, features fitted on train only, and three figures always together."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup.vote_matrix import ABSTAIN


class Scores(NamedTuple):
    """How good predictions are that may abstain, a pytree.

    Attributes:
      accuracy: on the covered examples, NaN if there are none. By itself it rewards abstaining.
      coverage: the share of examples with a prediction.
      adjusted: the accuracy on all examples, where abstaining is a guess of the most frequent class.
    """

    accuracy: Float[Array, "*batch"]
    coverage: Float[Array, "*batch"]
    adjusted: Float[Array, "*batch"]


def scores(labels: Int[AnyArray, " n"], predictions: Int[AnyArray, " n"], *, fallback: int | Array) -> Scores:
    """Returns the three figures.

    >>> found = scores(np.array([0, 1, 1, 0]), np.array([0, 0, -1, -1]), fallback=1)
    >>> [round(float(value), 2) for value in found]
    [0.5, 0.5, 0.5]

    Args:
      labels: the true classes.
      predictions: classes, or -1 for abstain.
      fallback: the class to guess, such as the most frequent one among the labelled examples.

    Raises:
      ValueError: if there are not as many predictions as labels, or none.
    """
    if np.shape(labels) != np.shape(predictions) or np.ndim(labels) != 1 or not len(labels):
        raise ValueError(
            f"labels and predictions must be of one shape (n,), got {np.shape(labels)} and {np.shape(predictions)}"
        )
    labels, predictions = jnp.asarray(labels), jnp.asarray(predictions)
    covered, right = predictions != ABSTAIN, predictions == labels
    accuracy = right.sum() / jnp.where(covered.any(), covered.sum(), jnp.nan)
    adjusted = jnp.where(covered, right, labels == fallback).mean()
    return Scores(accuracy, covered.mean(), adjusted)


def labelled_sample(
    labels: Int[AnyArray, " n"], count: int, *, key: Key, stratified: bool = True
) -> Int[np.ndarray, " count"]:
    """Draws the rows whose labels a method may see, in rising order.

    Args:
      labels: all classes.
      count: how many rows.
      key: the random key.
      stratified: whether each class gets its share, and at least one; otherwise every class gets at least one all the
        same, since no method learns a class that it has not seen, and the rest is drawn without regard to the class.

    Raises:
      ValueError: if there are fewer rows than that, or more classes than rows.
    """
    y = np.asarray(labels)
    classes, sizes = np.unique(y, return_counts=True)
    if not len(classes) <= count <= len(y):
        raise ValueError(f"count must lie between the {len(classes)} classes and the {len(y)} rows, got {count}")
    order = np.asarray(jax.random.permutation(key, len(y)))
    first = [order[y[order] == label][0] for label in classes]
    if stratified:
        quota = np.maximum(1, np.floor(count * sizes / len(y)).astype(int))
        while quota.sum() > count:
            quota[np.argmax(quota)] -= 1
        lacking = np.argsort(-(count * sizes / len(y) - quota), kind="stable")
        quota[lacking[: count - quota.sum()]] += 1
        chosen = np.concatenate([order[y[order] == label][:q] for label, q in zip(classes, quota, strict=True)])
    else:
        rest = order[~np.isin(order, first)]
        chosen = np.concatenate([first, rest[: count - len(first)]])
    return np.sort(chosen)


class Projection(NamedTuple):
    """Principal components, a pytree.

    Attributes:
      mean: ``(d,)``.
      components: ``(c, d)``, orthonormal, the first with the largest variance.
      variances: ``(c,)``.
    """

    mean: Float[Array, "*batch d"]
    components: Float[Array, "*batch c d"]
    variances: Float[Array, "*batch c"]

    def __call__(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n c"]:
        """Returns the coordinates of examples."""
        return jnp.dot(jnp.asarray(features, jnp.float32) - self.mean, self.components.T, precision="highest")


def principal_components(features: Float[AnyArray, "n d"], count: int) -> Projection:
    """Fits principal components; give it the training examples only.

    Args:
      features: one row an example.
      count: how many components, at most d and n.

    Raises:
      ValueError: if there are fewer columns or rows than that.
    """
    n, d = np.shape(features)
    if not 1 <= count <= min(n, d):
        raise ValueError(f"count must lie between 1 and the lesser of {n} rows and {d} columns, got {count}")
    x = np.asarray(features, np.float32)
    mean = x.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance = (x - mean).T @ (x - mean) / n
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    leading = vectors[:, ::-1][:, :count].T
    # The sign of a component means nothing; the largest entry is made positive, so that machines agree.
    leading *= np.sign(np.take_along_axis(leading, np.abs(leading).argmax(axis=1)[:, None], axis=1))
    return Projection(
        jnp.asarray(mean), jnp.asarray(leading, jnp.float32), jnp.asarray(values[::-1][:count], jnp.float32)
    )
