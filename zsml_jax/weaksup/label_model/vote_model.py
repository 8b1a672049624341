"""What most label models are when they are fitted: a class prior, and each function's votes given the class."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_votes, mapped_over_rows


@flax.struct.dataclass
class VoteModel:
    r"""Functions that are independent given the class, a pytree: :math:`p(y) \prod_j p(\lambda_j | y)`.

    Attributes:
      log_prior: of each class, ``(k,)``, nats.
      log_likelihood: of abstaining (row 0) and of each vote v (row v + 1) given the class, ``(m, k + 1, k)``, nats. A
        model that reads nothing from abstaining has zeros in row 0.
      converged: whether the fit met its tolerance.
      iterations: passes over the votes, or steps.
    """

    log_prior: Float[AnyArray, "*batch k"]
    log_likelihood: Float[AnyArray, "*batch m k1 k"]
    converged: AnyArray
    iterations: AnyArray

    def log_posterior(self, votes: Int[AnyArray, "n m"]) -> Float[Array, "n k"]:
        """Returns the log-probability of each class given the votes, nats."""
        m, _, k = self.log_likelihood.shape
        votes = checked_columns(votes, m, k)
        return _log_posterior(self.log_prior, self.log_likelihood, votes)

    def posterior(self, votes: Int[AnyArray, "n m"]) -> Float[Array, "n k"]:
        """Returns the probability of each class given the votes; the prior where nobody votes, if abstaining is silent.

        Raises:
          ValueError: if the votes have not one column a function, or lie outside of the range.
        """
        return jnp.exp(self.log_posterior(votes))

    def predict(self, votes: Int[AnyArray, "n m"]) -> Int[Array, " n"]:
        """Returns the most probable class, the first on ties, and -1 where no function votes."""
        return hard_labels(self.posterior(votes), votes)

    @property
    def accuracies(self) -> Float[Array, " m"]:
        """The probability that a function is right where it votes, ``(m,)``, in the model."""
        joint = jnp.exp(self.log_likelihood[:, 1:] + self.log_prior)
        voting = joint.sum(axis=(1, 2))
        return jnp.trace(joint, axis1=1, axis2=2) / jnp.where(voting > 0, voting, 1)


def checked_columns(votes: Int[AnyArray, "n m"], m: int, k: int) -> Int[Array, "n m"]:
    """Returns votes of fitted functions; rows, even all of them, may abstain.

    Raises:
      ValueError: if there is not one column for each function, or a vote is out of range.
    """
    shape = np.shape(votes)
    if len(shape) != 2 or shape[1] != m:
        raise ValueError(f"votes must have {m} columns, one for each fitted function, got shape {shape}")
    if isinstance(votes, jax.core.Tracer) or not (len(votes) and (np.asarray(votes) == ABSTAIN).all()):
        return checked_votes(votes, k)
    return jnp.asarray(votes)


def hard_labels(scores: Float[AnyArray, "n k"], votes: Int[AnyArray, "n m"]) -> Int[Array, " n"]:
    """Returns the argmax of each row, and -1 where no function votes."""
    voted = (jnp.asarray(votes) != ABSTAIN).any(axis=1)
    return jnp.where(voted, jnp.argmax(scores, axis=1), ABSTAIN)


def summed_over_functions(votes: Int[Array, "n m"], table: Float[Array, "m k1 c"]) -> Float[Array, "n c"]:
    """Returns the sum over functions of ``table[j, vote + 1]``: one matrix product a vote, and no gather."""
    total = jnp.zeros((votes.shape[0], table.shape[2]), table.dtype)
    for vote in range(table.shape[1]):
        total += jnp.dot((votes == vote - 1).astype(table.dtype), table[:, vote], precision="highest")
    return total


@jax.jit
def _log_posterior(log_prior: Array, log_likelihood: Array, votes: Array) -> Array:
    log_likelihood = jnp.maximum(log_likelihood, -1e4)  # an infinity times no vote would be NaN in a matrix product
    return mapped_over_rows(
        lambda block: jax.nn.log_softmax(log_prior + summed_over_functions(block, log_likelihood), axis=1), votes
    )
