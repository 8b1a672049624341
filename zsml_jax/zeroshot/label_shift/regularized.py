"""Regularised learning under label shift: a penalised and constrained inverse of the confusion matrix."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate.newton import minimize
from zsml_jax.evaluate.score_checks import checked_scalar
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.label_shift.black_box import normalised_estimate
from zsml_jax.zeroshot.label_shift.moments import ShiftMoments, shift_moments

#: Stages of barrier and smoothing, from a fraction of the problem's unit down to rounding.
_STAGES = 16
_STEPS_OF_A_STAGE = 30
_LARGEST_STEP = 10.0


class RllsOutput(NamedTuple):
    """An estimate by :func:`rlls`, a pytree.

    Attributes:
      label_distribution: the probability of each class on the target, ``(k,)``.
      importance_weights: its ratio to the source's label frequencies, ``(k,)``; zero for a class without labels.
      converged: whether the duality gap is within the tolerance.
      condition_number: of the confusion matrix.
      raw_weights: ``1 + theta``, ``(k,)``, before ``label_distribution`` is scaled to sum to one.
      objective: ``|C theta - b| + penalty |theta|`` at the solution.
      duality_gap: a bound on how far the objective lies above its least value.
      penalty: the factor of ``|theta|``.
      iterations: Newton steps taken.
    """

    label_distribution: Float[Array, " k"]
    importance_weights: Float[Array, " k"]
    converged: Bool[Array, ""]
    condition_number: Float[Array, ""]
    raw_weights: Float[Array, " k"]
    objective: Float[Array, ""]
    duality_gap: Float[Array, ""]
    penalty: Float[Array, ""]
    iterations: Int[Array, ""]


def default_penalty(n: int, k: int, *, alpha: float = 0.01, delta: float = 0.05) -> float:
    r"""Returns ``alpha * 3 (2 ln(2k / delta) / (3n) + sqrt(2 ln(2k / delta) / n))``.

    With alpha = 1 it bounds the error of the confusion matrix with probability ``1 - delta`` (Azizzadenesheli et al.,
    2019, lemma 1); alpha = 0.01 is what its authors ran.

    Args:
      n: labelled source examples.
      k: classes.
      alpha: the factor in front of the bound.
      delta: the probability that the bound may fail with.
    """
    log_term = 2 * math.log(2 * k / delta)
    return alpha * 3 * (log_term / (3 * n) + math.sqrt(log_term / n))


def rlls(
    source_log_probs: Float[AnyArray, "n k"],
    source_labels: Int[AnyArray, " n"],
    target_log_probs: Float[AnyArray, "n_target k"],
    *,
    soft: bool = False,
    penalty: Scalar | None = None,
    source_weights: Float[AnyArray, " n"] | None = None,
    target_weights: Float[AnyArray, " n_target"] | None = None,
    tolerance: Scalar = 1e-4,
) -> RllsOutput:
    """Minimises ``|C theta - b| + penalty |theta|`` over ``theta >= -1`` (Azizzadenesheli et al., 2019, section 2.1).

    C is the joint confusion matrix, b the change of the mean prediction from source to target, and ``1 + theta`` the
    importance weights. The norms are not squared, as in the paper and in its released code. A barrier keeps the
    weights positive while both norms are smoothed; barrier and smoothing go to zero together, and the dual solution
    that they imply bounds the error left.

    A class without labelled source examples gets probability zero.

    Args:
      source_log_probs: class scores of the labelled source, ``(n, k)``, in nats.
      source_labels: its class indices, ``(n,)``.
      target_log_probs: class scores of the unlabelled target, ``(n_target, k)``, in nats.
      soft: whether to use probabilities instead of decisions.
      penalty: the factor of ``|theta|``; :func:`default_penalty` of the source's size when not given.
      source_weights: the weight of each source example, ``(n,)``; equal when not given.
      target_weights: the weight of each target example, ``(n_target,)``; equal when not given.
      tolerance: the largest duality gap that counts as converged, in units of the largest singular value of C.

    Returns:
      The estimate, with its duality gap.

    Raises:
      ValueError: if shapes disagree, a label is out of range, scores or weights are not sound, or the penalty is
        negative.
    """
    moments = shift_moments(
        source_log_probs,
        source_labels,
        target_log_probs,
        soft=soft,
        source_weights=source_weights,
        target_weights=target_weights,
    )
    dtype = moments.confusion.dtype
    if penalty is None:
        penalty = default_penalty(*source_log_probs.shape)
    return _solve(moments, checked_scalar(penalty, "penalty", dtype), checked_scalar(tolerance, "tolerance", dtype))


@jax.jit
@jax.default_matmul_precision("highest")
def _solve(moments: ShiftMoments, penalty: Array, tolerance: Array) -> RllsOutput:
    singular = jnp.linalg.svd(moments.confusion, compute_uv=False)
    unit = singular[0]
    matrix = moments.confusion / unit
    change = (moments.target_prediction - moments.source_prediction) / unit
    ratio = penalty / unit
    theta, iterations = _descend_barriers(matrix, change, ratio)
    objective = jnp.linalg.norm(matrix @ theta - change) + ratio * jnp.linalg.norm(theta)
    gap = objective - _dual_bound(matrix, change, ratio, theta)
    return RllsOutput(
        *normalised_estimate(1 + theta, moments.source_distribution),
        converged=gap <= tolerance,
        condition_number=jnp.where(singular[-1] > 0, singular[0] / singular[-1], jnp.inf),
        raw_weights=1 + theta,
        objective=objective * unit,
        duality_gap=gap * unit,
        penalty=penalty,
        iterations=iterations,
    )


def _final_smoothing(dtype: jnp.dtype) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.75 / 2


def _descend_barriers(matrix: Array, change: Array, ratio: Array) -> tuple[Array, Array]:
    k = change.size
    stages = jnp.geomspace(0.3, _final_smoothing(change.dtype), _STAGES, dtype=change.dtype)

    def stage(theta: Array, smoothing: Array) -> tuple[Array, Array]:
        barrier = smoothing / k

        def smoothed(theta: Array) -> tuple[Array, Array, Array]:
            residual = matrix @ theta - change
            fit = jnp.sqrt(residual @ residual + smoothing**2)
            size = jnp.sqrt(theta @ theta + smoothing**2)
            inside = theta > -1
            weights = jnp.where(inside, 1 + theta, 1)
            value = jnp.where(inside.all(), fit + ratio * size - barrier * jnp.log(weights).sum(), jnp.inf)
            slope = matrix.T @ residual / fit
            gradient = slope + ratio * theta / size - barrier / weights
            hessian = (
                (matrix.T @ matrix - jnp.outer(slope, slope)) / fit
                + ratio * (jnp.eye(k) - jnp.outer(theta, theta) / size**2) / size
                + jnp.diag(barrier / weights**2)
            )
            return value, gradient, hessian

        newton = minimize(
            smoothed, theta, tolerance=smoothing / 10, max_iterations=_STEPS_OF_A_STAGE, max_step=_LARGEST_STEP
        )
        return newton.x, newton.iterations

    theta, iterations = jax.lax.scan(stage, jnp.zeros(k, change.dtype), stages)
    return theta, iterations.sum()


def _dual_bound(matrix: Array, change: Array, ratio: Array, theta: Array) -> Array:
    """A lower bound of the least objective: ``-<b, u> - sum(z)``.

    It holds for any u and z with ``|u| <= 1``, ``z >= 0`` and ``|z - C^T u| <= ratio``. The better of
    two such points is taken. Where the residual is positive, u is its direction. Where the penalty is so small that
    the residual vanishes, its direction is rounding; u then follows from ``C^T u = z - v``.
    """
    smoothing = _final_smoothing(change.dtype)
    residual = matrix @ theta - change
    direction = residual / jnp.sqrt(residual @ residual + smoothing**2)
    v = ratio * theta / jnp.sqrt(theta @ theta + smoothing**2)
    multipliers = smoothing / change.size / (1 + theta)

    def bound(u: Array, z: Array) -> Array:
        u_size, v_size = jnp.linalg.norm(u), jnp.linalg.norm(z - matrix.T @ u)
        excess = jnp.maximum(u_size, jnp.where(v_size > 0, v_size / ratio, 0))
        value = -(change @ u + z.sum()) / jnp.maximum(excess, 1)
        return jnp.where(jnp.isfinite(value), value, 0)

    along = bound(direction, jnp.maximum(matrix.T @ direction + v, 0))
    across = bound(jnp.linalg.lstsq(matrix.T, multipliers - v)[0], multipliers)
    return jnp.maximum(jnp.maximum(along, across), 0)
