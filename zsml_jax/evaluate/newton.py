"""Newton's method with Levenberg-Marquardt damping, for smooth convex functions of few variables.

Calibrators, prior matching and the like minimise convex functions of k or 2k variables whose sums run over n examples:
one Hessian costs ``n k^2`` in a matrix product, and ten of them suffice where a first-order method would take thousands
of passes.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import Array

#: A point ``(p,)`` to the value, the gradient ``(p,)`` and the Hessian ``(p, p)`` there.
SecondOrder: TypeAlias = Callable[[Array], tuple[Array, Array, Array]]

_SMALLEST_DAMPING = 1e-9
_LARGEST_DAMPING = 1e9


class NewtonOutput(NamedTuple):
    """Where Newton's method ended.

    Attributes:
      x: the point, ``(p,)``.
      value: the function there.
      gradient: its gradient there, ``(p,)``.
      iterations: how many Hessians were evaluated after the first.
      converged: whether the L1 norm of the gradient is within the tolerance.
    """

    x: Float[Array, " p"]
    value: Float[Array, ""]
    gradient: Float[Array, " p"]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


class _State(NamedTuple):
    x: Array
    value: Array
    gradient: Array
    hessian: Array
    damping: Array
    iterations: Array


def minimize(
    function: SecondOrder, x: Float[Array, " p"], *, tolerance: Array, max_iterations: Array | int, max_step: float
) -> NewtonOutput:
    """Minimises a smooth convex function.

    Each step solves ``(H + damping diag(H)) step = -gradient`` (Marquardt, 1963). A step that lowers the function is
    taken and the damping falls; any other step, a NaN or an infinity among them, is refused and the damping grows.
    Where two values differ by less than rounding, the smaller gradient decides. A direction along which the function
    is flat, such as a constant added to all logits, needs no care from the caller.

    Args:
      function: the value, gradient and Hessian at a point; infinity outside of the function's domain.
      x: the first point, ``(p,)``, inside the domain.
      tolerance: the L1 norm of the gradient to stop at.
      max_iterations: the largest number of steps, refused ones included.
      max_step: the largest change of one variable in one step.

    Returns:
      The last point taken.
    """
    eps = jnp.finfo(x.dtype).eps

    def unfinished(state: _State) -> Array:
        improvable = (jnp.abs(state.gradient).sum() > tolerance) & (state.damping < _LARGEST_DAMPING)
        return improvable & (state.iterations < max_iterations)

    def step(state: _State) -> _State:
        diagonal = jnp.diagonal(state.hessian)
        diagonal = jnp.maximum(diagonal, eps * diagonal.max() + jnp.finfo(x.dtype).tiny)
        damped = state.hessian + jnp.diag(state.damping * diagonal)
        direction = -jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(damped), state.gradient)
        direction = direction * jnp.minimum(1, max_step / jnp.abs(direction).max())
        proposal = state.x + direction
        value, gradient, hessian = function(proposal)
        rounding = 4 * eps * jnp.abs(state.value)
        smaller_gradient = jnp.abs(gradient).sum() < jnp.abs(state.gradient).sum()
        better = (value < state.value - rounding) | ((value <= state.value + rounding) & smaller_gradient)
        damping = jnp.where(better, state.damping / 8, state.damping * 8)
        taken = _State(proposal, value, gradient, hessian, damping, state.iterations)
        kept = state._replace(damping=damping)
        moved = jax.tree.map(lambda new, old: jnp.where(better, new, old), taken, kept)
        return moved._replace(damping=jnp.maximum(moved.damping, _SMALLEST_DAMPING), iterations=state.iterations + 1)

    first = _State(x, *function(x), damping=jnp.asarray(1e-4, x.dtype), iterations=jnp.asarray(0))
    last = jax.lax.while_loop(unfinished, step, first)
    converged = jnp.abs(last.gradient).sum() <= tolerance
    return NewtonOutput(last.x, last.value, last.gradient, last.iterations, converged)
