r"""OTTER on a stream of batches: a dual that is carried along.

Small batches do not hold the label distribution, so fitting each by itself hurts (see :mod:`.otter`). Here the state
holds the scores of the last ``window`` examples, and each batch warm-starts the entropic problem over them from the
dual so far, so that the dual follows a drifting stream and costs a few passes over the window.

A window of n examples is itself a sample: it deviates from the label distribution :math:`\nu` by about
:math:`k / 2n` in relative entropy. So the class masses are asked to be near it, with a penalty of n / k nats
(:class:`.otter.Near`), which leaves the first predictions close to the zero-shot ones and fades as the stream goes on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate import score_checks
from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot.transport import semidual
from zsml_jax.zeroshot.transport.marginals import Near


class OnlineState(NamedTuple):
    """The dual of a stream and what it was fitted to, a pytree.

    Attributes:
      dual: the reward of each class, ``(k,)``, nats; -inf for a class of zero mass.
      n_seen: the number of examples so far, a float32 scalar.
      window: the scores of the last examples, the newest at the end, ``(w, k)``, nats; zeros where none was seen yet.
      marginal_error: L1 distance of the class masses in the window from those that the dual asks for.
      converged: whether the last update met its tolerance; if not, the next one goes on from there.
    """

    dual: Float[Array, "*batch k"]
    n_seen: Float[Array, "*batch"]
    window: Float[Array, "*batch w k"]
    marginal_error: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]

    def predict(self, log_probs: Float[AnyArray, "m k"]) -> Int[Array, " m"]:
        """Returns the class of any points, ``argmax(log_probs + dual)``; the first on ties."""
        return jnp.argmax(jnp.asarray(log_probs) + self.dual, axis=-1)


def init(label_distribution: Float[AnyArray, " k"], *, window: int = 4096) -> OnlineState:
    """Returns the state before the first batch.

    Args:
      label_distribution: the mass of each class over the stream, ``(k,)``.
      window: over how many of the last examples the dual is fitted: dozens for each class, less if the stream drifts.

    Returns:
      A state that predicts as the scores do, except that classes of zero mass are never predicted.

    Raises:
      ValueError: if it is not a distribution, or ``window`` is not positive.
    """
    k = np.size(label_distribution)
    score_checks.check_label_distribution(label_distribution, k)
    if window < 1:
        raise ValueError(f"window must be positive, got {window}")
    nu = jnp.asarray(label_distribution, jnp.result_type(float))
    return OnlineState(
        dual=jnp.where(nu > 0, 0.0, -jnp.inf),
        n_seen=jnp.zeros((), nu.dtype),
        window=jnp.zeros((window, k), nu.dtype),
        marginal_error=jnp.zeros((), nu.dtype),
        converged=jnp.ones((), bool),
    )


def update(
    state: OnlineState,
    log_probs: Float[AnyArray, "b k"],
    label_distribution: Float[AnyArray, " k"],
    *,
    epsilon: Scalar = 0.1,
    tolerance: Scalar = 1e-3,
    max_iterations: Scalar = 200,
) -> OnlineState:
    """Returns the state after one more batch. Pure; jit it once and scan, or call it batch by batch.

    Args:
      state: the state so far.
      log_probs: class scores of the batch, ``(b, k)``, nats.
      label_distribution: the mass of each class over the stream, ``(k,)``; it may change from batch to batch.
      epsilon: the temperature of the plan, nats, positive. Small values come near OTTER's linear programme.
      tolerance: the L1 error of the class masses at which an update ends.
      max_iterations: passes over the window at most.

    Returns:
      The next state.

    Raises:
      ValueError: on NaN or +inf scores, shapes that do not fit, or a temperature that is not positive.
    """
    log_probs = score_checks.checked_log_probs(log_probs)
    b, k = log_probs.shape
    score_checks.check_label_distribution(label_distribution, k)
    if not isinstance(epsilon, jax.core.Tracer) and not float(epsilon) > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if state.dual.shape != (k,):
        raise ValueError(f"log_probs has {k} classes, but the state has {state.dual.shape[0]}")
    dtype, size = state.window.dtype, state.window.shape[0]
    window = jnp.concatenate([state.window, log_probs.astype(dtype)])[-size:]
    n_seen = state.n_seen + b
    n_held = jnp.minimum(n_seen, size)
    weights = jnp.where(jnp.arange(size) >= size - n_held, 1 / n_held, 0.0).astype(dtype)
    marginal = Near(label_distribution, n_seen / k).astype(dtype)
    solution = semidual.solve(
        window,
        marginal,
        jnp.asarray(epsilon, dtype),
        weights,
        jnp.where(jnp.isfinite(state.dual), state.dual, 0.0),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    return OnlineState(
        dual=jnp.where(marginal.active, solution.dual, -jnp.inf),
        n_seen=n_seen,
        window=window,
        marginal_error=solution.error,
        converged=solution.error <= tolerance,
    )
