r"""Accuracy over groups: three averages under their own names, the worst group, and the gap between them.

"Average accuracy" means three different things in the literature on group robustness, and published tables mix them:

- :func:`micro_average`: every example counts the same (CelebA in WILDS);
- :func:`macro_group_average`: every group counts the same (PACS, VLCS and CXR14 in RoboShot's released code);
- :func:`train_weighted_average`: every group counts as in the training set (Waterbirds: WILDS' adjusted average).

Start with :func:`group_accuracies`, from which all of them follow. A group without an example has no accuracy. It is
left out of the averages, whose weights are then those of the groups present, and it is never the worst group.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.validation import check_indices, checked_weights, is_traced
from zsml_jax.typing import AnyArray, Array

#: The names of the three averages.
Average = Literal["micro", "macro_group", "train_weighted"]


class GroupAccuracies(NamedTuple):
    """The accuracy of each group, a pytree.

    Attributes:
      accuracy: the accuracy of each group, in [0, 1]; zero where the group is empty.
      weight: the share of the examples in each group; they sum to one.
    """

    accuracy: Float[AnyArray, "*batch g"]
    weight: Float[AnyArray, "*batch g"]

    @property
    def present(self) -> Bool[AnyArray, "*batch g"]:
        """Whether each group has an example."""
        return self.weight > 0


def group_accuracies(
    labels: Int[AnyArray, " n"],
    predictions: Int[AnyArray, " n"],
    groups: Int[AnyArray, " n"],
    *,
    n_groups: int,
    weights: Float[AnyArray, " n"] | None = None,
) -> GroupAccuracies:
    """Returns the accuracy within each group.

    Args:
      labels: true class indices.
      predictions: predicted class indices.
      groups: the group of each example, between 0 and ``n_groups - 1``.
      n_groups: the number of groups.
      weights: a non-negative weight per example; equal where omitted.

    Returns:
      Accuracy and share of each group.

    Raises:
      ValueError: if the shapes differ, a group is out of range, or the weights are invalid.
    """
    n = len(labels)
    check_indices(labels, n, None, "labels")
    check_indices(predictions, n, None, "predictions")
    check_indices(groups, n, n_groups, "groups")
    weights, groups = checked_weights(weights, n), jnp.asarray(groups)
    correct = weights * (jnp.asarray(labels) == jnp.asarray(predictions))
    weight = jax.ops.segment_sum(weights, groups, n_groups)
    right = jax.ops.segment_sum(correct, groups, n_groups)
    return GroupAccuracies(jnp.where(weight > 0, right / jnp.where(weight > 0, weight, 1), 0), weight)


def micro_average(by_group: GroupAccuracies) -> Float[Array, "*batch"]:
    """Returns the plain accuracy: the mean over groups by their share of the examples at hand."""
    return jnp.sum(jnp.asarray(by_group.accuracy) * by_group.weight, axis=-1)


def macro_group_average(by_group: GroupAccuracies) -> Float[Array, "*batch"]:
    """Returns the unweighted mean of the accuracy over the groups that have examples."""
    return jnp.mean(jnp.asarray(by_group.accuracy), axis=-1, where=by_group.present)


def train_weighted_average(by_group: GroupAccuracies, train_weights: AnyArray) -> Float[Array, "*batch"]:
    """Returns the mean over groups by their size in the training set: the adjusted average of WILDS.

    Args:
      by_group: the accuracy of each group.
      train_weights: count or share of each group in the training set, ``(g,)``.

    Returns:
      The average over the groups that have examples.

    Raises:
      ValueError: if the training weights are of another shape, negative, not finite, or zero for all groups at hand.
    """
    weights = checked_weights(train_weights, by_group.accuracy.shape[-1], "train_weights")
    if not is_traced(train_weights, by_group.weight) and not np.all(np.any((weights > 0) & by_group.present, axis=-1)):
        raise ValueError(f"train_weights must be positive for a group that has examples, got {train_weights}")
    weights = weights * by_group.present
    return jnp.sum(by_group.accuracy * weights, axis=-1) / weights.sum(axis=-1)


def worst_group_accuracy(by_group: GroupAccuracies) -> Float[Array, "*batch"]:
    """Returns the lowest accuracy of a group that has examples."""
    return jnp.min(jnp.asarray(by_group.accuracy), axis=-1, where=by_group.present, initial=1.0)


def accuracy_gap(
    by_group: GroupAccuracies, *, average: Average, train_weights: AnyArray | None = None
) -> Float[Array, "*batch"]:
    """Returns a named average minus the worst group's accuracy.

    Args:
      by_group: the accuracy of each group.
      average: which of the three averages.
      train_weights: count or share of each group in the training set; for ``"train_weighted"`` only.

    Returns:
      The gap; it is not negative.

    Raises:
      ValueError: if the average is unknown, or ``train_weights`` is missing or not wanted.
    """
    if average not in ("micro", "macro_group", "train_weighted"):
        raise ValueError(f"average must be 'micro', 'macro_group' or 'train_weighted', got {average!r}")
    if (train_weights is not None) != (average == "train_weighted"):
        raise ValueError(f"train_weights must be given for average='train_weighted' and only then, got {average!r}")
    if train_weights is not None:
        mean = train_weighted_average(by_group, train_weights)
    else:
        mean = micro_average(by_group) if average == "micro" else macro_group_average(by_group)
    return mean - worst_group_accuracy(by_group)
