"""Prior matching in log space: shift the class scores until the mean prediction equals a label distribution.

The shift ``g`` solves ``mean_i softmax(log p_i + g) = label_distribution``. It is the column dual of entropic optimal
transport with cost ``-log p`` and a regularisation of one nat, so that OTTER's epsilon leads from here (1) to the
exact transport plan (0). For calibrated posteriors of a source whose label distribution has shifted,
``g = log(target / source)`` up to a constant, and the prediction is Bayes' (see :mod:`.label_shift`).

Prior matching as released, with multipliers of probabilities, is in :mod:`.prior_matching_released`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.newton import minimize
from zsml_jax.zeroshot.validation import (
    check_label_distribution,
    checked_log_probs,
    checked_sample_weights,
    checked_scalar,
)

#: Fixed-point steps before Newton's: they suffice for soft predictions, and bring sharp ones near.
_FIXED_POINT_STEPS = 20
#: The largest change of a dual variable in one step, in nats.
_LARGEST_STEP = 20.0


class PriorMatchingOutput(NamedTuple):
    """A fitted shift of class scores, a pytree.

    Attributes:
      dual: the shift, ``(k,)``, in nats; its mean over the classes of positive probability is zero, and it is -inf
        for a class of probability zero.
      marginal: the mean prediction under the shift, ``(k,)``.
      marginal_error: its L1 distance from the label distribution.
      iterations: fixed-point and Newton steps taken.
      converged: whether ``marginal_error`` is within the tolerance.
    """

    dual: Float[Array, " k"]
    marginal: Float[Array, " k"]
    marginal_error: Float[Array, ""]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]

    def log_probs(self, log_probs: Float[AnyArray, "n k"]) -> Float[Array, "n k"]:
        """Returns the shifted and normalised log-probabilities of new examples, in nats."""
        return jax.nn.log_softmax(checked_log_probs(log_probs) + self.dual, axis=-1)

    def predict(self, log_probs: Float[AnyArray, "n k"]) -> Int[Array, " n"]:
        """Returns the class index of the largest shifted score, the first one on ties."""
        return jnp.argmax(checked_log_probs(log_probs) + self.dual, axis=-1)


def match(
    log_probs: Float[AnyArray, "n k"],
    label_distribution: Float[AnyArray, " k"],
    *,
    sample_weights: Float[AnyArray, " n"] | None = None,
    tolerance: Scalar = 1e-6,
    max_iterations: Scalar = 1_000,
) -> PriorMatchingOutput:
    """Finds ``g`` with ``sum_i w_i softmax(log p_i + g) = label_distribution``.

    It minimises the convex semi-dual ``sum_i w_i logsumexp(log p_i + g) - <label_distribution, g>``: first by the
    fixed point ``g += log(label_distribution / marginal)``, which is Sinkhorn's iteration, then by damped Newton.
    ``jit``, ``vmap`` and ``grad`` (by the implicit function theorem, so no iteration is unrolled) all work.

    Args:
      log_probs: class scores ``(n, k)``, in nats; a constant added to a row changes nothing.
      label_distribution: the probability of each class, ``(k,)``.
      sample_weights: the weight of each example, ``(n,)``; equal when not given.
      tolerance: the largest L1 error of the marginal that counts as converged.
      max_iterations: the largest number of Newton steps after the fixed point's twenty.

    Returns:
      The shift, its marginal, and whether they converged. Where no shift can meet the label distribution, because too
      many scores are -inf, ``converged`` is False.

    Raises:
      ValueError: if an argument has a wrong shape, the scores hold a NaN, or the label distribution is none.
    """
    log_probs = checked_log_probs(log_probs)
    n, k = log_probs.shape
    check_label_distribution(label_distribution, k)
    weights = checked_sample_weights(sample_weights, n, log_probs.dtype)
    tolerance = checked_scalar(tolerance, "tolerance", log_probs.dtype)
    max_iterations = checked_scalar(max_iterations, "max_iterations", jnp.int32)
    return _match(log_probs, jnp.asarray(label_distribution, log_probs.dtype), weights, tolerance, max_iterations)


@jax.jit
@jax.default_matmul_precision("highest")
def _match(
    log_probs: Array, label_distribution: Array, weights: Array, tolerance: Array, max_iterations: Array
) -> PriorMatchingOutput:
    target = label_distribution / label_distribution.sum()
    support = target > 0
    scores = jnp.where(support, jax.nn.log_softmax(log_probs, axis=-1), -jnp.inf)
    problem = (scores, target, weights)
    # Half of the tolerance, as centring the dual rounds once more.
    dual, iterations = _solve(*jax.lax.stop_gradient(problem), tolerance / 2, max_iterations)
    dual = _with_implicit_derivative(dual, *problem)
    marginal = _mean(weights, _predictions(scores, dual))
    error = jnp.abs(marginal - target).sum()
    return PriorMatchingOutput(
        dual=jnp.where(support, dual, -jnp.inf),
        marginal=marginal,
        marginal_error=error,
        iterations=iterations,
        converged=error <= tolerance,
    )


def _solve(
    scores: Array, target: Array, weights: Array, tolerance: Array, max_iterations: Array
) -> tuple[Array, Array]:
    support = target > 0

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        _, error, iterations = state
        return (error > tolerance) & (iterations < _FIXED_POINT_STEPS)

    def fixed_point(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        dual, _, iterations = state
        marginal = _mean(weights, _predictions(scores, dual))
        error = jnp.abs(marginal - target).sum()
        ratio = jnp.log(jnp.where(support, target, 1)) - jnp.log(jnp.where(support, marginal, 1))
        moved = dual + jnp.clip(ratio, -_LARGEST_STEP, _LARGEST_STEP)
        return jnp.where(error > tolerance, moved, dual), error, iterations + 1

    def semi_dual(dual: Array) -> tuple[Array, Array, Array]:
        normaliser = jax.nn.logsumexp(scores + dual, axis=1)
        predictions = _predictions(scores, dual)
        marginal = _mean(weights, predictions)
        value = weights @ jnp.where(normaliser > -jnp.inf, normaliser, 0) - target @ dual
        return value, marginal - target, _curvature(predictions, marginal, weights)

    start = (jnp.zeros_like(target), jnp.asarray(jnp.inf, target.dtype), jnp.asarray(0))
    dual, _, iterations = jax.lax.while_loop(unfinished, fixed_point, start)
    newton = minimize(semi_dual, dual, tolerance=tolerance, max_iterations=max_iterations, max_step=_LARGEST_STEP)
    return _centred(newton.x, support), iterations + newton.iterations


@jax.custom_jvp
def _with_implicit_derivative(dual: Array, scores: Array, target: Array, weights: Array) -> Array:
    """Returns ``dual``, with the derivative that ``marginal(dual, scores, weights) = target`` gives it."""
    del scores, target, weights
    return dual


@_with_implicit_derivative.defjvp
@jax.default_matmul_precision("highest")
def _implicit_derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    dual, scores, target, weights = primals
    _, d_scores, d_target, d_weights = tangents
    dual = _with_implicit_derivative(*primals)
    support = target > 0
    predictions = _predictions(scores, dual)
    moved = predictions * (d_scores - (predictions * d_scores).sum(axis=1, keepdims=True))
    d_marginal = weights @ moved + d_weights @ predictions
    marginal = _mean(weights, predictions)
    curvature = _curvature(predictions, marginal, weights)
    # The curvature is blind to a constant; an absent class has none. Both are filled in, so that the solution, whose
    # right-hand side sums to zero, keeps the gauge of ``dual``.
    constant = support / support.sum()
    regular = curvature + jnp.outer(constant, constant) + jnp.diag(1.0 - support)
    d_dual = jnp.linalg.solve(regular, jnp.where(support, d_target - d_marginal, 0))
    return dual, _centred(d_dual, support)


def _predictions(scores: Array, dual: Array) -> Array:
    """Row-wise softmax of ``scores + dual``; a row without a possible class predicts nothing."""
    possible = (scores > -jnp.inf).any(axis=1, keepdims=True)
    return jnp.where(possible, jax.nn.softmax(jnp.where(possible, scores, 0) + dual, axis=1), 0)


def _mean(weights: Array, rows: Array) -> Array:
    """Weighted mean of the rows; XLA sums this form pairwise, where ``weights @ rows`` loses two digits in float32."""
    return (weights[:, None] * rows).sum(axis=0)


def _curvature(predictions: Array, marginal: Array, weights: Array) -> Array:
    return jnp.diag(marginal) - (predictions * weights[:, None]).T @ predictions


def _centred(dual: Array, support: Array) -> Array:
    return jnp.where(support, dual - (dual * support).sum() / support.sum(), 0)
