r"""Annealed Anderson-Sinkhorn: the iteration that maximises the semi-dual of :mod:`.semidual`.

It asks for the class masses at a dual and a temperature and moves on from them, so that the same pure step serves a
``while_loop`` over scores in memory and a host's loop over chunks on disk.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.transport.marginals import Marginal

_MEMORY = 8  # earlier iterates that Anderson mixing combines
_ANNEALING_RATIO = 3.0  # epsilon shrinks by this factor from level to level
_ANNEALING_TOLERANCE = 0.02  # an intermediate level ends at this L1 error
_ANNEALING_ITERATIONS = 25  # or after this many passes


class AnnealingState(NamedTuple):
    """The solver's state: ask for a :class:`Pass` at ``dual`` and ``epsilon``, then :func:`advance`.

    Attributes:
      dual: the dual to evaluate next, ``(k,)``; where ``done``, the solution.
      epsilon: the temperature of the level, nats.
      error: the error of the marginal at the last evaluated dual.
      iteration: passes so far.
      done: whether the last level has converged.
      level_iteration: passes in this level.
      points: earlier duals of the level, ``(memory, k)``.
      residuals: their Sinkhorn steps, ``(memory, k)``.
      best_norm: the smallest norm of a Sinkhorn step in the level.
      fallback: where the plain Sinkhorn step from that best point leads, ``(k,)``.
    """

    dual: Float[Array, " k"]
    epsilon: Float[Array, ""]
    error: Float[Array, ""]
    iteration: Int[Array, ""]
    done: Bool[Array, ""]
    level_iteration: Int[Array, ""]
    points: Float[Array, "memory k"]
    residuals: Float[Array, "memory k"]
    best_norm: Float[Array, ""]
    fallback: Float[Array, " k"]


def start(marginal: Marginal, epsilon: Scalar, initial_dual: Float[AnyArray, " k"]) -> AnnealingState:
    """Returns the state that begins at temperature ``epsilon``."""
    dual = jnp.asarray(initial_dual)
    history = jnp.zeros((_MEMORY, *dual.shape), dual.dtype)
    infinite = jnp.full((), jnp.inf, dual.dtype)
    return AnnealingState(
        dual=jnp.where(marginal.active, dual, 0.0),
        epsilon=jnp.asarray(epsilon, dual.dtype),
        error=infinite,
        iteration=jnp.zeros((), jnp.int32),
        done=jnp.zeros((), bool),
        level_iteration=jnp.zeros((), jnp.int32),
        points=history,
        residuals=history,
        best_norm=infinite,
        fallback=dual,
    )


@jax.default_matmul_precision("highest")
def advance(
    state: AnnealingState, mass: Float[Array, " k"], marginal: Marginal, epsilon: Scalar, tolerance: Scalar
) -> AnnealingState:
    """Takes one step of the annealed, Anderson-accelerated Sinkhorn iteration.

    Type-II Anderson mixing (Walker and Ni, 2011) of the Sinkhorn map, in the norm weighted by the label distribution.
    It restarts with a plain Sinkhorn step from the best point seen when a step has grown twofold: plain Sinkhorn never
    lowers the semi-dual.

    Args:
      state: the state whose dual was evaluated.
      mass: the masses of that evaluation, ``(k,)``.
      marginal: what is known of the label distribution.
      epsilon: the temperature of the last level, nats.
      tolerance: the error at which the last level is done.

    Returns:
      The next state, with the same dual if the last level is done.
    """
    error = marginal.error(state.dual, mass)
    last_level = state.epsilon <= epsilon
    done = last_level & (error <= tolerance)
    level_over = ~last_level & ((error <= _ANNEALING_TOLERANCE) | (state.level_iteration >= _ANNEALING_ITERATIONS))

    plain = marginal.sinkhorn_update(state.dual, mass, state.epsilon)
    residual = plain - state.dual
    norm = jnp.sqrt(jnp.sum(marginal.center * residual**2))
    diverged = norm > 2 * state.best_norm
    mixed = plain - _anderson_correction(state, residual, marginal.center)
    new_level = level_over | diverged
    slot = state.level_iteration % _MEMORY
    following = AnnealingState(
        dual=jnp.where(diverged, state.fallback, jnp.where(level_over, plain, mixed)),
        epsilon=jnp.where(level_over, jnp.maximum(state.epsilon / _ANNEALING_RATIO, epsilon), state.epsilon),
        error=error,
        iteration=state.iteration + 1,
        done=done,
        level_iteration=jnp.where(new_level, 0, state.level_iteration + 1),
        points=state.points.at[slot].set(state.dual),
        residuals=state.residuals.at[slot].set(residual),
        best_norm=jnp.where(new_level, jnp.inf, jnp.minimum(norm, state.best_norm)),
        fallback=jnp.where(norm < state.best_norm, plain, state.fallback),
    )
    kept = state._replace(error=error, iteration=state.iteration + 1, done=done)
    return jax.tree.map(lambda new, old: jnp.where(done, old, new), following, kept)


def _anderson_correction(state: AnnealingState, residual: Array, weights: Array) -> Array:
    filled = jnp.arange(_MEMORY) < state.level_iteration
    point_steps = jnp.where(filled[:, None], state.dual - state.points, 0.0)
    residual_steps = jnp.where(filled[:, None], residual - state.residuals, 0.0)
    scaled = residual_steps * jnp.sqrt(weights)
    lengths = jnp.maximum(jnp.linalg.norm(scaled, axis=1, keepdims=True), jnp.finfo(residual.dtype).tiny)
    scaled = scaled / lengths
    regularisation = 100 * jnp.finfo(residual.dtype).eps
    gram = scaled @ scaled.T + regularisation * jnp.eye(_MEMORY, dtype=residual.dtype)
    coefficients = jnp.linalg.solve(gram, scaled @ (residual * jnp.sqrt(weights))) / lengths[:, 0]
    return coefficients @ (point_steps + residual_steps)
