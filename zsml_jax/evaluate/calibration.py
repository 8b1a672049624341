"""How well predicted probabilities match what happens: calibration error, log-likelihood and Brier score."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.validation import check_indices, check_scores, checked_weights
from zsml_jax.typing import AnyArray, Array

#: How confidences are put into bins.
Binning = Literal["equal_width", "equal_mass"]


class Reliability(NamedTuple):
    """A reliability diagram in numbers, a pytree.

    Attributes:
      confidence: the mean confidence in each bin; zero where the bin is empty.
      accuracy: the accuracy in each bin; zero where the bin is empty.
      weight: the share of the examples in each bin; they sum to one.
    """

    confidence: Float[Array, "*batch bins"]
    accuracy: Float[Array, "*batch bins"]
    weight: Float[Array, "*batch bins"]

    @property
    def expected_calibration_error(self) -> Float[Array, "*batch"]:
        """The mean distance of accuracy and confidence over the examples."""
        return jnp.sum(self.weight * jnp.abs(self.accuracy - self.confidence), axis=-1)


def reliability(
    labels: Int[AnyArray, " n"],
    probs: Float[AnyArray, "n k"],
    *,
    n_bins: int = 15,
    binning: Binning = "equal_width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Reliability:
    """Bins examples by the probability of their predicted class.

    Bin b of equal width holds confidences in ``(b / n_bins, (b + 1) / n_bins]``. Bins of equal mass split the examples
    in the order of their confidence, so that each has the same total weight up to one example.

    Args:
      labels: true class indices.
      probs: predicted class probabilities.
      n_bins: the number of bins.
      binning: how bins are formed.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      Mean confidence, accuracy and share of each bin.

    Raises:
      ValueError: if the probabilities are none, a label is out of range, or the binning is unknown.
    """
    n, k = check_scores(probs, "probs", probabilities=True)
    check_indices(labels, n, k, "labels")
    if n_bins < 1:
        raise ValueError(f"n_bins must be at least 1, got {n_bins}")
    weights, probs = checked_weights(weights, n), jnp.asarray(probs)
    confidence = probs.max(axis=1).astype(weights.dtype)
    correct = (probs.argmax(axis=1) == jnp.asarray(labels)).astype(weights.dtype)
    if binning == "equal_width":
        edges = jnp.asarray(np.linspace(0, 1, n_bins + 1)[1:-1], dtype=confidence.dtype)
        bins = jnp.searchsorted(edges, confidence, side="left")
    elif binning == "equal_mass":
        order = jnp.argsort(confidence)
        # The middle of each example's weight, so that no rounding at a bin's edge moves an example of equal weight.
        middle = jnp.cumsum(weights[order]) - weights[order] / 2
        bins = jnp.zeros(n, int).at[order].set(jnp.clip((middle * n_bins).astype(int), 0, n_bins - 1))
    else:
        raise ValueError(f"binning must be 'equal_width' or 'equal_mass', got {binning!r}")
    total = jax.ops.segment_sum(weights, bins, n_bins)
    mean = lambda values: jnp.where(
        total > 0, jax.ops.segment_sum(weights * values, bins, n_bins) / jnp.where(total > 0, total, 1), 0
    )
    return Reliability(mean(confidence), mean(correct), total)


def expected_calibration_error(
    labels: Int[AnyArray, " n"],
    probs: Float[AnyArray, "n k"],
    *,
    n_bins: int = 15,
    binning: Binning = "equal_width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, ""]:
    r"""Returns the expected calibration error, :math:`\sum_b w_b |\mathrm{acc}_b - \mathrm{conf}_b|`.

    Guo et al., "On calibration of modern neural networks" (2017), section 2; bins as :func:`reliability` forms them.

    Args:
      labels: true class indices.
      probs: predicted class probabilities.
      n_bins: the number of bins.
      binning: how bins are formed.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The error, in [0, 1].

    Raises:
      ValueError: as :func:`reliability`.
    """
    diagram = reliability(labels, probs, n_bins=n_bins, binning=binning, weights=weights)
    return diagram.expected_calibration_error


def negative_log_likelihood(
    labels: Int[AnyArray, " n"], log_probs: Float[AnyArray, "n k"], *, weights: Float[AnyArray, " n"] | None = None
) -> Float[Array, ""]:
    """Returns the weighted mean of ``-log_probs`` at the labels, in nats.

    It is infinite where a label has probability zero: nothing is clipped.

    Args:
      labels: true class indices.
      log_probs: log-probabilities, normalised by the caller (``ClassHead.log_probs`` are).
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The negative log-likelihood per example.

    Raises:
      ValueError: if a label is out of range, or the log-probabilities hold a NaN.
    """
    n, k = check_scores(log_probs, "log_probs")
    check_indices(labels, n, k, "labels")
    weights = checked_weights(weights, n)
    own = jnp.take_along_axis(jnp.asarray(log_probs), jnp.asarray(labels)[:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(weights > 0, weights * own, 0))


def brier_score(
    labels: Int[AnyArray, " n"], probs: Float[AnyArray, "n k"], *, weights: Float[AnyArray, " n"] | None = None
) -> Float[Array, ""]:
    r"""Returns the multi-class Brier score, the mean of :math:`\sum_j (p_j - [y = j])^2`.

    It lies in [0, 2]; for two classes it is twice the score of the positive class alone.

    Args:
      labels: true class indices.
      probs: predicted class probabilities.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The score; lower is better.

    Raises:
      ValueError: if a label is out of range, or the probabilities are none.
    """
    n, k = check_scores(probs, "probs", probabilities=True)
    check_indices(labels, n, k, "labels")
    weights = checked_weights(weights, n)
    truth = jax.nn.one_hot(labels, k, dtype=weights.dtype)
    return jnp.sum(weights * jnp.sum((jnp.asarray(probs) - truth) ** 2, axis=1))
