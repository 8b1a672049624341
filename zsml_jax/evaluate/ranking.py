"""How well scores rank positives above negatives: the area under the ROC curve, and average precision."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray


class RocCurve(NamedTuple):
    """Points of a ROC curve, from (0, 0) to (1, 1).

    Attributes:
      false_positive_rate: rising, ``(t,)``.
      true_positive_rate: rising, ``(t,)``.
    """

    false_positive_rate: Float[np.ndarray, " t"]
    true_positive_rate: Float[np.ndarray, " t"]


def roc_auc(positives: Float[AnyArray, " p"], negatives: Float[AnyArray, " n"]) -> float:
    """Returns the chance that a positive has a higher score than a negative, a tie counting half.

    >>> roc_auc(np.array([0.9, 0.8]), np.array([0.1, 0.8]))
    0.875

    Raises:
      ValueError: if one side is empty or a score is not finite.
    """
    positives, negatives = _checked(positives, negatives)
    order = np.sort(negatives)
    below = np.searchsorted(order, positives, side="left") + np.searchsorted(order, positives, side="right")
    return float(below.mean() / (2 * len(negatives)))


def average_precision(positives: Float[AnyArray, " p"], negatives: Float[AnyArray, " n"]) -> float:
    """Returns the mean precision at each positive; those of equal scores are reached together.

    >>> round(average_precision(np.array([0.9, 0.7]), np.array([0.8, 0.1])), 4)
    0.8333

    Raises:
      ValueError: as :func:`roc_auc`.
    """
    positives, negatives = _checked(positives, negatives)
    at_least = lambda values: len(values) - np.searchsorted(np.sort(values), positives, side="left")
    right = at_least(positives)
    return float(np.mean(right / (right + at_least(negatives))))


def roc_curve(positives: Float[AnyArray, " p"], negatives: Float[AnyArray, " n"]) -> RocCurve:
    """Returns the curve, a point for each different score.

    Raises:
      ValueError: as :func:`roc_auc`.
    """
    positives, negatives = _checked(positives, negatives)
    scores = np.unique(np.concatenate([positives, negatives]))[::-1]
    share = lambda values: 1 - np.searchsorted(np.sort(values), scores, side="left") / len(values)
    return RocCurve(np.concatenate([[0.0], share(negatives)]), np.concatenate([[0.0], share(positives)]))


def _checked(positives: AnyArray, negatives: AnyArray) -> tuple[np.ndarray, np.ndarray]:
    checked = []
    for name, scores in (("positives", positives), ("negatives", negatives)):
        scores = np.asarray(scores, np.float64)
        if not scores.size:
            raise ValueError(f"{name} must not be empty")
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} must be finite scores, got {scores[~np.isfinite(scores)][0]}")
        checked.append(scores)
    return checked[0], checked[1]
