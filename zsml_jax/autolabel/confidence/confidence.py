"""What a confidence function is: fitted on labelled points, then a score of any points, without labels."""

from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.typing import Array, Key


@runtime_checkable
class Confidence(Protocol):
    """How sure one may be of predictions, as a pair of pure functions.

    An instance holds settings: its numbers are leaves of a pytree, which ``jit`` traces and a study stacks, and what
    decides shapes is static. What :meth:`fit` returns is a pytree.
    """

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> Any:
        """Fits the function on labelled points.

        Args:
          outputs: of the classifier on the points.
          labels: their true classes, ``(n,)``.
          weights: which points count, not negative, ``(n,)``: rows of weight 0 are as if they were not there. If all
            are zero, the fit is that of equal weights.
          key: the random key.
        """
        ...

    def score(self, fitted: Any, outputs: Outputs) -> Float[Array, " n"]:
        """Returns the confidence of each point in its predicted class, ``(n,)``; a large one is sure."""
        ...


def usable(weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns the weights scaled to sum to one; equal ones where all are zero, so that no fit divides by it."""
    total = weights.sum()
    return jnp.where(total > 0, weights, 1.0) / jnp.where(total > 0, total, len(weights))
