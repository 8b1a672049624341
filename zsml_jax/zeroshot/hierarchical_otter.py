"""H-OTTER: the two-level variant of OTTER's paper (Table 3), superclass first, then the class within it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.evaluate import score_checks
from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot import otter


class HierarchicalOutput(NamedTuple):
    """A fitted two-level adaptation: first the superclass, then the class within it.

    Attributes:
      upper: the adaptation of the superclasses.
      dual: the reward of each class among those of its superclass, ``(k,)``, nats.
      assignment: the class of each fitted example, ``(n,)``.
      superclass_of: the superclass of each class, ``(k,)``.
    """

    upper: otter.OtterOutput
    dual: Float[Array, " k"]
    assignment: Int[Array, " n"]
    superclass_of: Int[Array, " k"]

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether the solver of the upper level met its tolerance."""
        return self.upper.converged

    def predict(
        self, log_probs: Float[AnyArray, "m k"], superclass_log_probs: Float[AnyArray, "m s"] | None = None
    ) -> Int[Array, " m"]:
        """Returns the class of any points: the best class within the best superclass."""
        log_probs = jnp.asarray(log_probs)
        if superclass_log_probs is None:
            superclass_log_probs = _superclass_log_probs(log_probs, self.superclass_of, self.upper.dual.shape[-1])
        chosen = self.upper.predict(superclass_log_probs)
        inside = self.superclass_of == chosen[:, None]
        return jnp.argmax(jnp.where(inside, log_probs + self.dual, -jnp.inf), axis=-1)


def solve(
    log_probs: Float[AnyArray, "n k"],
    label_distribution: Float[AnyArray, " k"],
    superclass_of: Int[AnyArray, " k"],
    *,
    superclass_log_probs: Float[AnyArray, "n s"] | None = None,
    epsilon: float = 0.0,
) -> HierarchicalOutput:
    """Adapts superclass predictions, then the classes within each superclass.

    Args:
      log_probs: class scores, ``(n, k)``, nats.
      label_distribution: the mass of each class, ``(k,)``.
      superclass_of: the superclass of each class, ``(k,)``, numbered from 0 without a gap.
      superclass_log_probs: superclass scores, ``(n, s)``; by default the log of the summed class probabilities.
      epsilon: as in :func:`.otter.solve`, at both levels.

    Returns:
      The fitted adaptation.

    Raises:
      ValueError: as :func:`.otter.solve`, or if a superclass number is missing.
    """
    score_checks.check_log_probs(log_probs)
    k = np.shape(log_probs)[1]
    score_checks.check_label_distribution(label_distribution, k)
    parents = np.asarray(superclass_of)
    s = int(parents.max(initial=-1)) + 1
    if parents.shape != (k,) or sorted(set(parents.tolist())) != list(range(s)):
        raise ValueError(f"superclass_of must name the superclass of each of the {k} classes, numbered 0, 1, ...")
    log_probs, nu = jnp.asarray(log_probs), np.asarray(label_distribution, np.float64)
    if superclass_log_probs is None:
        superclass_log_probs = _superclass_log_probs(log_probs, parents, s)
    upper = otter.solve(superclass_log_probs, np.bincount(parents, nu, s), epsilon=epsilon)

    assignment = np.zeros(log_probs.shape[0], np.int32)
    dual = np.where(nu > 0, 0.0, -np.inf)
    for superclass in range(s):
        rows = np.flatnonzero(np.asarray(upper.assignment) == superclass)
        classes = np.flatnonzero(parents == superclass)
        mass = nu[classes].sum()
        if rows.size and mass > 0:
            lower = otter.solve(log_probs[rows[:, None], classes], nu[classes] / mass, epsilon=epsilon)
            dual[classes] = lower.dual
            assignment[rows] = classes[np.asarray(lower.assignment)]
    return HierarchicalOutput(upper, jnp.asarray(dual), jnp.asarray(assignment), jnp.asarray(parents))


def _superclass_log_probs(log_probs: Array, superclass_of: AnyArray, s: int) -> Array:
    members = jnp.asarray(superclass_of) == jnp.arange(s)[:, None]
    return jax.nn.logsumexp(jnp.where(members, log_probs[:, None, :], -jnp.inf), axis=-1)
