r"""Votes counted with weights: given ones, or those that labelled examples call for.

Of independent functions with accuracies :math:`a_j` and errors spread evenly over the other classes, the best decision
is the vote with weights :math:`\log\frac{(k - 1) a_j}{1 - a_j}` (Nitzan and Paroush, 1982).
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.label_model.vote_model import checked_columns, hard_labels, summed_over_functions
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_labels, checked_votes, mapped_over_rows


@flax.struct.dataclass
class VoteShare:
    """A weighted vote, a pytree.

    Attributes:
      weights: of each function, ``(m,)``.
      fallback: the posterior where no weight is given to any class, ``(k,)``.
    """

    weights: Float[AnyArray, "*batch m"]
    fallback: Float[AnyArray, "*batch k"]

    def posterior(self, votes: Int[AnyArray, "n m"]) -> Float[Array, "n k"]:
        """Returns the share of each class in the weight of the votes.

        Raises:
          ValueError: if the votes have not one column a function, or lie outside of the range.
        """
        votes = checked_columns(votes, self.weights.shape[0], self.fallback.shape[0])
        return _shares(votes, jnp.asarray(self.weights), jnp.asarray(self.fallback))

    def predict(self, votes: Int[AnyArray, "n m"]) -> Int[Array, " n"]:
        """Returns the class with the largest share, the first on ties, and -1 where no function votes."""
        return hard_labels(self.posterior(votes), votes)


def fit(
    votes: Int[AnyArray, "n m"],
    k: int,
    *,
    weights: Float[AnyArray, " m"] | None = None,
    labels: Int[AnyArray, " n"] | None = None,
    smoothing: Scalar = 1.0,
) -> VoteShare:
    """Returns a weighted vote, whose weights are given or come from labels.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``.
      k: the number of classes.
      weights: one for each function, not negative. Give these or ``labels``.
      labels: the class of each of the n examples; a function worse than chance gets the weight zero.
      smoothing: right and wrong votes added to each function's count, at the rate of chance.

    Raises:
      ValueError: if the votes, weights or labels are not sound, or not exactly one of weights and labels is given.
    """
    votes = checked_votes(votes, k)
    m = votes.shape[1]
    if weights is not None and labels is not None:
        raise ValueError("weights or labels must be given, and not both")
    if weights is not None:
        if np.shape(weights) != (m,):
            raise ValueError(f"weights must have shape ({m},), one for each function, got shape {np.shape(weights)}")
        if not isinstance(weights, jax.core.Tracer) and not (np.isfinite(weights) & (np.asarray(weights) >= 0)).all():
            raise ValueError(f"weights must be finite and not negative, got {np.asarray(weights).tolist()}")
        chosen = jnp.asarray(weights, jnp.result_type(float))
    elif labels is not None:
        truth = checked_labels(labels, votes.shape[0], k)
        voted = (votes != ABSTAIN).sum(axis=0) + k * smoothing
        accuracy = ((votes == truth[:, None]).sum(axis=0) + smoothing) / jnp.where(voted > 0, voted, 1)
        accuracy = jnp.clip(accuracy, 1e-6, 1 - 1e-6)
        chosen = jnp.maximum(jnp.log((k - 1) * accuracy / (1 - accuracy)), 0)
    else:
        raise ValueError("weights or labels must be given, got neither")
    return VoteShare(weights=chosen, fallback=jnp.full(k, 1 / k))


@jax.jit
def _shares(votes: Array, weights: Array, fallback: Array) -> Array:
    k = fallback.shape[0]
    table = weights[:, None, None] * jnp.eye(k + 1, k, -1)

    def shares(block: Array) -> Array:
        scores = summed_over_functions(block, table)
        total = scores.sum(axis=1, keepdims=True)
        return jnp.where(total > 0, scores / jnp.where(total > 0, total, 1), fallback)

    return mapped_over_rows(shares, votes)
