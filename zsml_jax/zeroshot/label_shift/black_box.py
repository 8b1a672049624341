"""Black-box shift estimation: importance weights from the inverse of a confusion matrix."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.score_checks import checked_scalar
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.label_shift.moments import ShiftMoments, shift_moments


class BbseOutput(NamedTuple):
    """An estimate by :func:`bbse`, a pytree.

    Attributes:
      label_distribution: the probability of each class on the target, ``(k,)``.
      importance_weights: its ratio to the source's label frequencies, ``(k,)``; zero for a class without labels.
      converged: whether the confusion matrix is regular in its own precision.
      condition_number: of the confusion matrix: how much it can enlarge the relative error of the mean prediction.
      clipped_mass: the probability that negative weights had before they were set to zero.
    """

    label_distribution: Float[Array, " k"]
    importance_weights: Float[Array, " k"]
    converged: Bool[Array, ""]
    condition_number: Float[Array, ""]
    clipped_mass: Float[Array, ""]


def bbse(
    source_log_probs: Float[AnyArray, "n k"],
    source_labels: Int[AnyArray, " n"],
    target_log_probs: Float[AnyArray, "n_target k"],
    *,
    soft: bool = False,
    ridge: Scalar = 1e-8,
    source_weights: Float[AnyArray, " n"] | None = None,
    target_weights: Float[AnyArray, " n_target"] | None = None,
) -> BbseOutput:
    """Solves ``C w = mean target prediction`` for the importance weights w (Lipton et al., 2018, section 3).

    ``w = (C^T C + ridge I)^-1 C^T mu``, with C the joint confusion matrix; negative weights become zero, and the
    label distribution ``w * source frequencies`` is scaled to sum to one. The solution goes by singular values, so
    that the condition number is not squared.

    A class without labelled source examples cannot be told from the others: it gets probability zero, the condition
    number is infinite, and ``converged`` is False.

    Args:
      source_log_probs: class scores of the labelled source, ``(n, k)``, in nats.
      source_labels: its class indices, ``(n,)``.
      target_log_probs: class scores of the unlabelled target, ``(n_target, k)``, in nats.
      soft: whether to use probabilities instead of decisions.
      ridge: the regularisation. Entries of C are of the order 1/k: beyond some thousands of classes the default,
        OTTER's, begins to shrink the weights.
      source_weights: the weight of each source example, ``(n,)``; equal when not given.
      target_weights: the weight of each target example, ``(n_target,)``; equal when not given.

    Returns:
      The estimate, with the condition number of the confusion matrix.

    Raises:
      ValueError: if shapes disagree, a label is out of range, or scores or weights are not sound.
    """
    moments = shift_moments(
        source_log_probs,
        source_labels,
        target_log_probs,
        soft=soft,
        source_weights=source_weights,
        target_weights=target_weights,
    )
    return _solve(moments, checked_scalar(ridge, "ridge", moments.confusion.dtype))


@jax.jit
@jax.default_matmul_precision("highest")
def _solve(moments: ShiftMoments, ridge: Array) -> BbseOutput:
    left, singular, right = jnp.linalg.svd(moments.confusion)
    condition_number = jnp.where(singular[-1] > 0, singular[0] / singular[-1], jnp.inf)
    # A singular value within rounding of zero carries no information; ridge = 0 must not divide by it.
    rounding = singular[0] * singular.size * jnp.finfo(singular.dtype).eps
    shrunken = jnp.where(singular > rounding, singular / (singular**2 + ridge), 0)
    weights = right.T @ (shrunken * (left.T @ moments.target_prediction))
    source = moments.source_distribution
    return BbseOutput(
        *normalised_estimate(weights, source),
        converged=(singular[-1] > rounding) & (weights > 0).any(),
        condition_number=condition_number,
        clipped_mass=(jnp.maximum(-weights, 0) * source).sum(),
    )


def normalised_estimate(
    weights: Float[Array, " k"], source_distribution: Float[Array, " k"]
) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    """Returns the label distribution of non-negative weights, and the weights that go with it."""
    mass = jnp.maximum(weights, 0) * source_distribution
    total = mass.sum()
    label_distribution = jnp.where(total > 0, mass / jnp.where(total > 0, total, 1), source_distribution)
    labelled = source_distribution > 0
    ratio = jnp.where(labelled, label_distribution / jnp.where(labelled, source_distribution, 1), 0)
    return label_distribution, ratio
