r"""The semi-dual of entropic optimal transport onto k classes: a concave problem in k numbers.

With log-probabilities :math:`L_{ij}`, row masses :math:`w_i` and a dual g, the plan of temperature :math:`\epsilon` is
:math:`\pi_{ij} = w_i \operatorname{softmax}_j((L_{ij} + g_j) / \epsilon)`, and the semi-dual

.. math:: h(g) - \epsilon \sum_i w_i \log \sum_j \exp((L_{ij} + g_j) / \epsilon)

is maximal where the masses :math:`q_j = \sum_i \pi_{ij}` are what the marginal asks for (Cuturi and Peyre, 2016).
The plan is never stored: one pass over blocks of rows gives q, so that the state of a solver is k floats and a pass
is a map-reduce. Sinkhorn's fixed-point map on g is accelerated by Anderson mixing, and epsilon is annealed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.transport import annealing, row_blocks
from zsml_jax.zeroshot.transport.marginals import Marginal

_GROUP_ROWS = 32  # that are summed first


class Pass(NamedTuple):
    """What one pass over the rows sums up.

    Attributes:
      mass: the mass that the plan gives each class, ``(k,)``.
      potential: the mean soft maximum of ``log_probs + dual``, a scalar in nats.
      cost: the mean transport cost of ``-log_probs`` under the plan, a scalar in nats.
    """

    mass: Float[Array, " k"]
    potential: Float[Array, ""]
    cost: Float[Array, ""]


def class_mass(
    log_probs: Float[AnyArray, "n k"],
    weights: Float[AnyArray, " n"],
    dual: Float[AnyArray, " k"],
    epsilon: Scalar,
    active: Bool[AnyArray, " k"],
    *,
    dtype: jax.typing.DTypeLike | None = None,
) -> Float[Array, " k"]:
    """Returns the mass that the plan gives each class; differentiable, with one block of the plan in memory at a time.

    Args:
      log_probs: class scores, ``(n, k)``, nats.
      weights: the mass of each row, ``(n,)``.
      dual: added to the scores, ``(k,)``, nats.
      epsilon: the temperature, nats.
      active: the classes that take part, ``(k,)``.
      dtype: the type in which exponentials are taken, after the row maximum was subtracted; by default the promoted
        type of scores and dual.

    Returns:
      The masses, ``(k,)``, which add over chunks of rows.
    """
    shift = jnp.where(active, dual, -jnp.inf)
    dtype = dtype or jnp.result_type(log_probs, shift)

    @jax.checkpoint
    def block_mass(rows: Array, mass: Array) -> Array:
        terms, _ = _exponentials(rows + shift, epsilon, dtype)
        return _class_sums(terms, mass).astype(shift.dtype)

    return row_blocks.sum_over_blocks(block_mass, jnp.asarray(log_probs), jnp.asarray(weights))


def evaluate(
    log_probs: Float[AnyArray, "n k"],
    weights: Float[AnyArray, " n"],
    dual: Float[AnyArray, " k"],
    epsilon: Scalar,
    active: Bool[AnyArray, " k"],
) -> Pass:
    """Returns the class masses, the semi-dual's potential and the transport cost; arguments as :func:`class_mass`."""
    shift = jnp.where(active, dual, -jnp.inf)

    @jax.checkpoint
    def block_pass(rows: Array, mass: Array) -> Pass:
        terms, top = _exponentials(rows + shift, epsilon, jnp.result_type(rows, shift))
        total = terms.sum(axis=1)
        potential = jnp.sum(mass * (top + epsilon * jnp.log(jnp.where(total > 0, total, 1.0))))
        cost = jnp.sum(_shares(terms, mass) * jnp.sum(terms * jnp.where(terms > 0, -rows, 0.0), axis=1))
        return Pass(_class_sums(terms, mass), potential, cost)

    return row_blocks.sum_over_blocks(block_pass, jnp.asarray(log_probs), jnp.asarray(weights))


def hessian(
    log_probs: Float[AnyArray, "n k"],
    weights: Float[AnyArray, " n"],
    dual: Float[AnyArray, " k"],
    epsilon: Scalar,
    active: Bool[AnyArray, " k"],
) -> Float[Array, "k k"]:
    """Returns the derivative of the class masses in the dual, ``(diag(q) - sum_i w_i p_i p_i^T) / epsilon``."""
    shift = jnp.where(active, dual, -jnp.inf)

    @jax.checkpoint
    def block_sum(rows: Array, mass: Array) -> Array:
        terms, _ = _exponentials(rows + shift, epsilon, jnp.result_type(rows, shift))
        weighted = _shares(terms, mass)[:, None] * terms
        plan = _shares(terms, jnp.ones_like(mass))[:, None] * terms
        outer = jnp.matmul(weighted.T, plan, precision=jax.lax.Precision.HIGHEST)
        return (jnp.diag(weighted.sum(axis=0)) - outer) / epsilon

    return row_blocks.sum_over_blocks(block_sum, jnp.asarray(log_probs), jnp.asarray(weights))


class Solution(NamedTuple):
    """The maximiser of the semi-dual.

    Attributes:
      dual: ``(k,)``, nats; zero for classes that may not have mass.
      error: the error of the marginal, in mass.
      n_iterations: passes over the rows.
    """

    dual: Float[Array, " k"]
    error: Float[Array, ""]
    n_iterations: Int[Array, ""]


def solve(
    log_probs: Float[Array, "n k"],
    marginal: Marginal,
    epsilon: Float[Array, ""],
    weights: Float[Array, " n"],
    initial_dual: Float[Array, " k"] | None,
    *,
    tolerance: Scalar,
    max_iterations: Scalar,
) -> Solution:
    """Maximises the semi-dual by annealed Anderson-Sinkhorn; jit, vmap, and implicit derivatives in both modes.

    Args:
      log_probs: class scores, ``(n, k)``, nats.
      marginal: what is known of the label distribution.
      epsilon: the temperature, nats, positive.
      weights: row masses that sum to one, ``(n,)``.
      initial_dual: where to begin, ``(k,)``; without one the temperature is annealed from the scale of the scores.
      tolerance: the L1 error of the marginal at which to stop.
      max_iterations: passes over the rows at most.

    Returns:
      The solution, whose ``dual`` has derivatives in the first four arguments.
    """
    constant = jax.lax.stop_gradient((log_probs, marginal, epsilon, weights, initial_dual))
    state = _iterate(*constant, tolerance, max_iterations)
    dual = with_implicit_derivative(state.dual, (log_probs, marginal, epsilon, weights))
    return Solution(dual, state.error, state.iteration)


def mean_margin(
    log_probs: Float[AnyArray, "n k"], weights: Float[AnyArray, " n"], active: Bool[AnyArray, " k"]
) -> Float[Array, ""]:
    """Returns the mean gap of a row's two best scores: the scale, in nats, on which rows change class."""
    floor = jnp.where(active, 0.0, -jnp.inf)

    def block_sum(rows: Array, mass: Array) -> Array:
        margins = row_margins(rows, floor)[1]
        return jnp.sum(mass * jnp.where(jnp.isfinite(margins), margins, 0.0))

    return row_blocks.sum_over_blocks(block_sum, jnp.asarray(log_probs), jnp.asarray(weights))


def row_margins(
    log_probs: Float[Array, "n k"], dual: Float[Array, " k"]
) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
    """Returns each row's best class, and by how much it leads the second best, nats."""
    scores = log_probs + dual
    best = jnp.argmax(scores, axis=1)
    rest = jnp.where(jnp.arange(scores.shape[1]) == best[:, None], -jnp.inf, scores)
    return best, jnp.max(scores, axis=1) - jnp.max(rest, axis=1)


@jax.jit
def _iterate(
    log_probs: Array,
    marginal: Marginal,
    epsilon: Array,
    weights: Array,
    initial_dual: Array | None,
    tolerance: Array,
    max_iterations: Array,
) -> annealing.AnnealingState:
    first = epsilon
    if initial_dual is None:
        first = jnp.maximum(epsilon, 4 * mean_margin(log_probs, weights, marginal.active))
        initial_dual = jnp.zeros_like(marginal.center)

    def step(state: annealing.AnnealingState) -> annealing.AnnealingState:
        mass = class_mass(log_probs, weights, state.dual, state.epsilon, marginal.active)
        return annealing.advance(state, mass, marginal, epsilon, tolerance)

    def unfinished(state: annealing.AnnealingState) -> Array:
        return ~state.done & (state.iteration < max_iterations)

    return jax.lax.while_loop(unfinished, step, annealing.start(marginal, first, initial_dual))


@jax.custom_jvp
def with_implicit_derivative(
    dual: Float[Array, " k"], problem: tuple[Array, Marginal, Array, Array]
) -> Float[Array, " k"]:
    """Returns a solution with the derivative that the implicit function theorem gives it; twice differentiable.

    Args:
      dual: the maximiser, ``(k,)``.
      problem: log_probs, marginal, epsilon and weights as in :func:`solve`, in which the result has derivatives.

    Returns:
      The dual.
    """
    del problem
    return dual


@with_implicit_derivative.defjvp
@jax.default_matmul_precision("highest")
def _implicit_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    dual, problem = with_implicit_derivative(*primals), primals[1]
    _, problem_tangent = tangents

    def residual(problem: tuple) -> Array:
        log_probs, marginal, epsilon, weights = problem
        return marginal.residual(dual, class_mass(log_probs, weights, dual, epsilon, marginal.active))

    log_probs, marginal, epsilon, weights = problem
    jacobian = marginal.residual_jacobian(hessian(log_probs, weights, dual, epsilon, marginal.active), dual)
    _, change = jax.jvp(residual, (problem,), (problem_tangent,))
    return dual, -jnp.linalg.solve(jacobian, change)


def _exponentials(scores: Array, epsilon: Scalar, dtype: jax.typing.DTypeLike) -> tuple[Array, Array]:
    """Returns ``exp((scores - top) / epsilon)``, ``(b, k)``, and each row's maximum ``top``, ``(b,)``."""
    top = jnp.max(scores, axis=1)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    return jnp.exp(((scores - top[:, None]) * (1 / epsilon)).astype(dtype)), top


def _class_sums(terms: Array, mass: Array) -> Array:
    """Sums the plan's columns in groups of rows, which in float32 keeps the digits that a long running sum loses.

    Rounding to the same precision has no other purpose than that XLA would join the two sums into a running one.
    """
    plan = _shares(terms, mass)[:, None] * terms
    n, k = plan.shape
    groups = jnp.pad(plan, ((0, -n % _GROUP_ROWS), (0, 0))).reshape(-1, _GROUP_ROWS, k).sum(axis=1)
    kind = jnp.finfo(groups.dtype)
    return jax.lax.reduce_precision(groups, kind.nexp, kind.nmant).sum(axis=0)


def _shares(terms: Array, mass: Array) -> Array:
    """Returns each row's mass over the sum of its terms; a row without a possible class has none to give."""
    total = terms.sum(axis=1)
    return jnp.where(total > 0, mass / jnp.where(total > 0, total, 1), 0).astype(terms.dtype)
