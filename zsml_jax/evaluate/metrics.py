"""Classification metrics: accuracy, recall, confusion, and distances between label histograms.

The arguments come in the order of scikit-learn: labels first. Class counts are static, so that every metric runs under
``jit`` and ``vmap`` and serves as the statistic of :func:`zsml_jax.evaluate.bootstrap_interval`. A class without a
labelled example has no recall: it is reported as zero, and left out of every mean over classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.validation import check_indices, check_scores, checked_weights, is_traced
from zsml_jax.typing import AnyArray, Array


def accuracy(
    labels: Int[AnyArray, " n"], predictions: Int[AnyArray, " n"], *, weights: Float[AnyArray, " n"] | None = None
) -> Float[Array, ""]:
    """Returns the weighted share of predictions that equal their label, in [0, 1].

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The accuracy.

    Raises:
      ValueError: if the shapes differ, there is no example, or the weights are invalid.
    """
    n = len(labels)
    check_indices(labels, n, None, "labels")
    check_indices(predictions, n, None, "predictions")
    return jnp.sum(checked_weights(weights, n) * (jnp.asarray(labels) == jnp.asarray(predictions)))


def top_k_accuracy(
    labels: Int[AnyArray, " n"],
    scores: Float[AnyArray, "n k"],
    *,
    top: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted share of examples whose label is among the ``top`` highest scores.

    Of equal scores the one with the lower class index ranks first, as in ``argmax``.

    Args:
      labels: true class indices.
      scores: a score per class; higher is better.
      top: how many classes count, from 1 to k.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The top-k accuracy, in [0, 1].

    Raises:
      ValueError: if ``top`` is not between 1 and k, a label is out of range, or the scores hold a NaN.
    """
    n, k = check_scores(scores, "scores")
    check_indices(labels, n, k, "labels")
    if not 1 <= top <= k:
        raise ValueError(f"top must lie between 1 and the number of classes {k}, got {top}")
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)[:, None]
    own = jnp.take_along_axis(scores, labels, axis=1)
    ahead = (scores > own) | ((scores == own) & (jnp.arange(k) < labels))
    return jnp.sum(checked_weights(weights, n) * (ahead.sum(axis=1) < top))


def confusion_matrix(
    labels: Int[AnyArray, " n"],
    predictions: Int[AnyArray, " n"],
    *,
    n_classes: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, "k k"]:
    """Returns the weighted count of every (label, prediction): rows are labels, columns are predictions.

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      n_classes: the number of classes.
      weights: a weight per example; one where omitted, so that the entries are counts.

    Returns:
      The confusion matrix, ``(n_classes, n_classes)``.

    Raises:
      ValueError: if an index is out of range, the shapes differ, or the weights are invalid.
    """
    n = len(labels)
    check_indices(labels, n, n_classes, "labels")
    check_indices(predictions, n, n_classes, "predictions")
    if weights is not None:
        checked_weights(weights, n)
    counted = jnp.ones(n) if weights is None else jnp.asarray(weights)
    cell = jnp.asarray(labels) * n_classes + jnp.asarray(predictions)
    return jax.ops.segment_sum(counted, cell, n_classes**2).reshape(n_classes, n_classes)


def per_class_recall(
    labels: Int[AnyArray, " n"],
    predictions: Int[AnyArray, " n"],
    *,
    n_classes: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, " k"]:
    """Returns for each class the weighted share of its examples that are predicted as it; zero for an absent class.

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      n_classes: the number of classes.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The recall of each class, in [0, 1].

    Raises:
      ValueError: as :func:`confusion_matrix`.
    """
    matrix = confusion_matrix(labels, predictions, n_classes=n_classes, weights=weights)
    total = matrix.sum(axis=1)
    return jnp.where(total > 0, jnp.diagonal(matrix) / jnp.where(total > 0, total, 1), 0)


def balanced_accuracy(
    labels: Int[AnyArray, " n"],
    predictions: Int[AnyArray, " n"],
    *,
    n_classes: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, ""]:
    """Returns the unweighted mean of the recall over the classes that have examples.

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      n_classes: the number of classes.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The balanced accuracy, in [0, 1].

    Raises:
      ValueError: as :func:`confusion_matrix`.
    """
    recall = per_class_recall(labels, predictions, n_classes=n_classes, weights=weights)
    present = label_histogram(labels, n_classes=n_classes, weights=weights) > 0
    return jnp.mean(recall, where=present)


def recall_std(
    labels: Int[AnyArray, " n"],
    predictions: Int[AnyArray, " n"],
    *,
    n_classes: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[Array, ""]:
    """Returns the population standard deviation of the recall over the classes that have examples ("RStd").

    A measure of selection bias: zero where every class, or option letter, is recalled equally well.

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      n_classes: the number of classes.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The standard deviation, in [0, 0.5].

    Raises:
      ValueError: as :func:`confusion_matrix`.
    """
    recall = per_class_recall(labels, predictions, n_classes=n_classes, weights=weights)
    present = label_histogram(labels, n_classes=n_classes, weights=weights) > 0
    return jnp.std(recall, where=present)


def label_histogram(
    labels: Int[AnyArray, " n"], *, n_classes: int, weights: Float[AnyArray, " n"] | None = None
) -> Float[Array, " k"]:
    """Returns the weighted frequency of each class among the labels or predictions, summing to one.

    Args:
      labels: class indices, true or predicted.
      n_classes: the number of classes.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      The label distribution, ``(n_classes,)``.

    Raises:
      ValueError: if an index is out of range or the weights are invalid.
    """
    check_indices(labels, len(labels), n_classes, "labels")
    return jax.ops.segment_sum(checked_weights(weights, len(labels)), jnp.asarray(labels), n_classes)


def total_variation(p: Float[AnyArray, "*batch k"], q: Float[AnyArray, "*batch k"]) -> Float[Array, "*batch"]:
    r"""Returns the total variation distance of two distributions, :math:`\frac12 \sum_j |p_j - q_j|`.

    Args:
      p: a distribution over k classes.
      q: another.

    Returns:
      The distance, in [0, 1].

    Raises:
      ValueError: if the shapes differ, or either is no distribution within 1e-2.
    """
    if np.shape(p) != np.shape(q):
        raise ValueError(f"p and q must have the same shape, got {np.shape(p)} and {np.shape(q)}")
    for name, values in (("p", p), ("q", q)):
        if not is_traced(values):
            check_scores(np.reshape(values, (-1, np.shape(values)[-1])), name, probabilities=True)
    return 0.5 * jnp.abs(jnp.asarray(p) - jnp.asarray(q)).sum(axis=-1)
