"""Label distributions by counting: of a few labels, or of a classifier's own predictions."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.score_checks import (
    check_label_distribution,
    check_labels,
    checked_log_probs,
    checked_sample_weights,
    checked_scalar,
)
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.label_shift.moments import mean_prediction


class CountOutput(NamedTuple):
    """An estimate by counting, a pytree.

    Attributes:
      label_distribution: the probability of each class, ``(k,)``.
      importance_weights: its ratio to the source distribution, ``(k,)``; zero where the source has none.
      converged: always True, as nothing is solved.
    """

    label_distribution: Float[Array, " k"]
    importance_weights: Float[Array, " k"]
    converged: Bool[Array, ""]


def few_shot(
    labels: Int[AnyArray, " n"],
    k: int,
    *,
    smoothing: Scalar = 1.0,
    sample_weights: Float[AnyArray, " n"] | None = None,
    source_distribution: Float[AnyArray, " k"] | None = None,
) -> CountOutput:
    """Estimates ``(count_j + smoothing) / (n + k smoothing)`` from a few labelled target examples.

    It is the mean of the posterior under a symmetric Dirichlet prior.

    Args:
      labels: class indices drawn from the target, ``(n,)``.
      k: the number of classes.
      smoothing: the Dirichlet parameter: 1 is Laplace's rule, 0.5 Jeffreys', 0 the plain frequencies.
      sample_weights: the weight of each label, ``(n,)``, scaled to sum to n; equal when not given.
      source_distribution: what the importance weights refer to, ``(k,)``; uniform when not given.

    Returns:
      The estimate.

    Raises:
      ValueError: if a label is out of range, or the smoothing is negative or not finite.
    """
    n = np.size(labels)
    check_labels(labels, n, k)
    weights = checked_sample_weights(sample_weights, n, jnp.result_type(float))
    smoothing = checked_scalar(smoothing, "smoothing", weights.dtype)
    counts = jnp.zeros(k, weights.dtype).at[jnp.asarray(labels)].add(n * weights)
    return _output((counts + smoothing) / (n + k * smoothing), source_distribution)


def histogram(
    target_log_probs: Float[AnyArray, "n k"],
    *,
    soft: bool = False,
    target_weights: Float[AnyArray, " n"] | None = None,
    source_distribution: Float[AnyArray, " k"] | None = None,
) -> CountOutput:
    """Takes the mean prediction for the label distribution: the naive estimate, which errs as the classifier does.

    Args:
      target_log_probs: class scores ``(n, k)``, in nats.
      soft: whether to average probabilities instead of counting decisions.
      target_weights: the weight of each example, ``(n,)``; equal when not given.
      source_distribution: what the importance weights refer to, ``(k,)``; uniform when not given.

    Returns:
      The estimate.

    Raises:
      ValueError: if an argument has a wrong shape or the scores hold a NaN.
    """
    log_probs = checked_log_probs(target_log_probs, "target_log_probs")
    weights = checked_sample_weights(target_weights, log_probs.shape[0], log_probs.dtype, "target_weights")
    return _output(mean_prediction(log_probs, weights, soft=soft), source_distribution)


def _output(label_distribution: Array, source_distribution: AnyArray | None) -> CountOutput:
    k = label_distribution.size
    if source_distribution is None:
        source = jnp.full(k, 1 / k, label_distribution.dtype)
    else:
        check_label_distribution(source_distribution, k, "source_distribution")
        source = jnp.asarray(source_distribution, label_distribution.dtype)
    ratio = jnp.where(source > 0, label_distribution / jnp.where(source > 0, source, 1), 0)
    return CountOutput(label_distribution, ratio, jnp.asarray(True))
