r"""OTTER on a stream of batches: a dual that is carried along.

Small batches do not hold the label distribution, so fitting each by itself hurts (see :mod:`.otter`). Here the dual is
a state. With :math:`q` the masses that the current dual gives the classes in a batch, it takes the damped Sinkhorn step

.. math:: g_j \leftarrow g_j - \epsilon \log\bigl( (1 - \eta) + \eta \, q_j / \nu_j \bigr),

which is a stochastic-approximation step of size :math:`\eta` on the semi-dual near its optimum, a whole Sinkhorn step
at :math:`\eta = 1`, and bounded by :math:`-\epsilon \log(1 - \eta)` for a class that a batch happens to lack.
:math:`\eta` is the share that the batch has of the examples seen so far, but never less than its share of
``effective_batch``, so that the dual follows a drifting stream.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.zeroshot import validation
from zsml_jax.zeroshot.transport import semidual


class OnlineState(NamedTuple):
    """The dual of a stream, a pytree.

    Attributes:
      dual: the reward of each class, ``(k,)``, nats; -inf for a class of zero mass.
      n_seen: the number of examples so far, a float32 scalar.
      mass: a running mean of the masses that the plan gave the classes, ``(k,)``: near the label distribution when
        the dual has settled.
    """

    dual: Float[Array, "*batch k"]
    n_seen: Float[Array, "*batch"]
    mass: Float[Array, "*batch k"]

    def predict(self, log_probs: Float[AnyArray, "m k"]) -> Int[Array, " m"]:
        """Returns the class of any points, ``argmax(log_probs + dual)``; the first on ties."""
        return jnp.argmax(jnp.asarray(log_probs) + self.dual, axis=-1)


def init(label_distribution: Float[AnyArray, " k"]) -> OnlineState:
    """Returns the state before the first batch.

    Args:
      label_distribution: the mass of each class over the stream, ``(k,)``.

    Returns:
      A state that predicts as the scores do, except that classes of zero mass are never predicted.

    Raises:
      ValueError: if it is not a distribution.
    """
    validation.check_label_distribution(label_distribution, np.size(label_distribution))
    nu = jnp.asarray(label_distribution, jnp.result_type(float))
    return OnlineState(jnp.where(nu > 0, 0.0, -jnp.inf), jnp.zeros((), nu.dtype), nu)


def update(
    state: OnlineState,
    log_probs: Float[AnyArray, "b k"],
    label_distribution: Float[AnyArray, " k"],
    *,
    epsilon: Scalar = 0.1,
    effective_batch: Scalar = 4096.0,
) -> OnlineState:
    """Returns the state after one more batch. Pure; jit it once and scan, or call it batch by batch.

    Args:
      state: the state so far.
      log_probs: class scores of the batch, ``(b, k)``, nats.
      label_distribution: the mass of each class over the stream, ``(k,)``.
      epsilon: the temperature of the plan, nats, positive. Small values come near OTTER and learn slowly.
      effective_batch: over how many examples the dual averages once it has seen as many.

    Returns:
      The next state.

    Raises:
      ValueError: on NaN or +inf scores, shapes that do not fit, or parameters that are not positive.
    """
    log_probs = validation.checked_log_probs(log_probs)
    b, k = log_probs.shape
    validation.check_label_distribution(label_distribution, k)
    for name, value in (("epsilon", epsilon), ("effective_batch", effective_batch)):
        if not isinstance(value, jax.core.Tracer) and not float(value) > 0:
            raise ValueError(f"{name} must be positive, got {value}")
    if state.dual.shape != (k,):
        raise ValueError(f"log_probs has {k} classes, but the state has {state.dual.shape[0]}")
    nu = jnp.asarray(label_distribution, state.mass.dtype)
    active = nu > 0
    weights = jnp.full(b, 1 / b, log_probs.dtype)
    mass = semidual.class_mass(log_probs, weights, state.dual, epsilon, active)
    share = jnp.maximum(b / (state.n_seen + b), jnp.minimum(b / effective_batch, 1.0))
    ratio = jnp.where(active, mass / jnp.where(active, nu, 1.0), 1.0)
    step = epsilon * jnp.log(jnp.maximum((1 - share) + share * ratio, jnp.finfo(nu.dtype).tiny))
    return OnlineState(
        dual=(state.dual - step).astype(state.dual.dtype),
        n_seen=state.n_seen + b,
        mass=((1 - share) * state.mass + share * mass).astype(state.mass.dtype),
    )
