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

from zsml_jax.evaluate.newton import minimize
from zsml_jax.evaluate.score_checks import (
    check_label_distribution,
    checked_log_probs,
    checked_sample_weights,
    checked_scalar,
)
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.transport import semidual
from zsml_jax.zeroshot.transport.marginals import Exactly

#: Passes of the annealed Sinkhorn iteration before Newton's: they suffice for soft scores, and bring sharp ones near.
_SINKHORN_PASSES = 100
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
    accelerated fixed point ``g += log(label_distribution / marginal)`` that :func:`.otter.solve` takes too, then by
    damped Newton, which meets a tolerance near rounding also where predictions are all but certain. ``jit``, ``vmap``
    and ``grad`` (by the implicit function theorem, so no iteration is unrolled) all work.

    Args:
      log_probs: class scores ``(n, k)``, in nats; a constant added to a row changes nothing.
      label_distribution: the probability of each class, ``(k,)``.
      sample_weights: the weight of each example, ``(n,)``; equal when not given.
      tolerance: the largest L1 error of the marginal that counts as converged.
      max_iterations: the largest number of Newton steps after the fixed point's hundred.

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
    marginal = Exactly(label_distribution / label_distribution.sum())
    active, epsilon = marginal.active, jnp.ones((), log_probs.dtype)
    problem = (jax.nn.log_softmax(log_probs, axis=-1), marginal, epsilon, weights)
    # Half of the tolerance, as centring the dual rounds once more.
    dual, iterations = _solve(*jax.lax.stop_gradient(problem), tolerance / 2, max_iterations)
    dual = semidual.with_implicit_derivative(dual, problem)
    mass = semidual.class_mass(problem[0], weights, dual, epsilon, active)
    error = marginal.error(dual, mass)
    return PriorMatchingOutput(
        dual=jnp.where(active, dual, -jnp.inf),
        marginal=mass,
        marginal_error=error,
        iterations=iterations,
        converged=error <= tolerance,
    )


def _solve(
    log_probs: Array, marginal: Exactly, epsilon: Array, weights: Array, tolerance: Array, max_iterations: Array
) -> tuple[Array, Array]:
    active = marginal.active

    def loss(dual: Array) -> tuple[Array, Array, Array]:
        sums = semidual.evaluate(log_probs, weights, dual, epsilon, active)
        curvature = semidual.hessian(log_probs, weights, dual, epsilon, active)
        return sums.potential - marginal.dual_value(dual), sums.mass - marginal.center, curvature

    start = semidual.solve(
        log_probs, marginal, epsilon, weights, None, tolerance=tolerance, max_iterations=_SINKHORN_PASSES
    )
    newton = minimize(loss, start.dual, tolerance=tolerance, max_iterations=max_iterations, max_step=_LARGEST_STEP)
    mean = jnp.where(active, newton.x, 0).sum() / active.sum()
    return jnp.where(active, newton.x - mean, 0), start.n_iterations + newton.iterations
