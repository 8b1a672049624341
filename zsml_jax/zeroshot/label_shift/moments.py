"""What the confusion-matrix estimators know of the data: a joint matrix and two mean predictions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.evaluate.score_checks import check_labels, checked_log_probs, checked_sample_weights
from zsml_jax.typing import AnyArray, Array


class ShiftMoments(NamedTuple):
    """Sufficient statistics of BBSE and RLLS, a pytree.

    Attributes:
      confusion: ``P(prediction a, label b)`` on the source, ``(k, k)``, summing to one.
      target_prediction: the mean prediction on the target, ``(k,)``.
    """

    confusion: Float[Array, "k k"]
    target_prediction: Float[Array, " k"]

    @property
    def source_distribution(self) -> Float[Array, " k"]:
        """The label frequencies of the source, ``(k,)``."""
        return self.confusion.sum(axis=0)

    @property
    def source_prediction(self) -> Float[Array, " k"]:
        """The mean prediction on the source, ``(k,)``."""
        return self.confusion.sum(axis=1)


def shift_moments(
    source_log_probs: Float[AnyArray, "n k"],
    source_labels: Int[AnyArray, " n"],
    target_log_probs: Float[AnyArray, "n_target k"],
    *,
    soft: bool = False,
    source_weights: Float[AnyArray, " n"] | None = None,
    target_weights: Float[AnyArray, " n_target"] | None = None,
) -> ShiftMoments:
    """Counts hard predictions (argmax, the first class on ties), or averages soft ones (probabilities).

    Args:
      source_log_probs: class scores of the labelled source, ``(n, k)``, in nats.
      source_labels: its class indices, ``(n,)``.
      target_log_probs: class scores of the unlabelled target, ``(n_target, k)``, in nats.
      soft: whether to average probabilities instead of counting decisions.
      source_weights: the weight of each source example, ``(n,)``; equal when not given.
      target_weights: the weight of each target example, ``(n_target,)``; equal when not given.

    Returns:
      The joint matrix of the source and the mean prediction on the target.

    Raises:
      ValueError: if shapes disagree, a label is out of range, or scores or weights are not sound.
    """
    source = checked_log_probs(source_log_probs, "source_log_probs")
    target = checked_log_probs(target_log_probs, "target_log_probs")
    check_same_classes(source, target)
    check_labels(source_labels, source.shape[0], source.shape[1], "source_labels")
    source_weights = checked_sample_weights(source_weights, source.shape[0], source.dtype, "source_weights")
    target_weights = checked_sample_weights(target_weights, target.shape[0], target.dtype, "target_weights")
    return _shift_moments(source, jnp.asarray(source_labels), target, source_weights, target_weights, soft=soft)


def check_same_classes(source_log_probs: Array, target_log_probs: Array) -> None:
    """Raises a ``ValueError`` unless source and target scores have the same number of columns."""
    k, k_target = source_log_probs.shape[1], target_log_probs.shape[1]
    if k != k_target:
        raise ValueError(f"target_log_probs must have {k} columns as source_log_probs, got {k_target}")


def mean_prediction(log_probs: Float[Array, "n k"], weights: Float[Array, " n"], *, soft: bool) -> Float[Array, " k"]:
    """Returns the weighted mean of hard or soft predictions; the weights sum to one."""
    if soft:
        return (weights[:, None] * jax.nn.softmax(log_probs, axis=1)).sum(axis=0)
    return jnp.zeros(log_probs.shape[1], log_probs.dtype).at[jnp.argmax(log_probs, axis=1)].add(weights)


@jax.jit(static_argnames="soft")
def _shift_moments(
    source: Array, labels: Array, target: Array, source_weights: Array, target_weights: Array, *, soft: bool
) -> ShiftMoments:
    k = source.shape[1]
    if soft:
        by_label = jax.ops.segment_sum(source_weights[:, None] * jax.nn.softmax(source, axis=1), labels, k)
        confusion = by_label.T
    else:
        confusion = jnp.zeros((k, k), source.dtype).at[jnp.argmax(source, axis=1), labels].add(source_weights)
    return ShiftMoments(confusion, mean_prediction(target, target_weights, soft=soft))
