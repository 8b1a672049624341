r"""FlyingSquid's triplets: accuracies in closed form from votes that agree (Fu et al., ICML 2020).

For two classes, votes :math:`\pm 1` or 0 for abstain, and functions that are independent given the class and right
more often than wrong,

.. math:: |E[\lambda_i Y]| = \sqrt{\left| E[\lambda_i \lambda_j] E[\lambda_i \lambda_k] / E[\lambda_j \lambda_k]
\right|},

averaged over all pairs j, k. Together with how often a function votes each way and with the class balance, this decides
its table of votes and classes. More classes are solved one against the rest.
"""

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.weaksup.label_model.moments import joint_counts
from zsml_jax.weaksup.label_model.vote_model import checked_columns, hard_labels, summed_over_functions
from zsml_jax.weaksup.vote_matrix import checked_balance, checked_votes, mapped_over_rows


@flax.struct.dataclass
class TripletModel:
    """One table for each class against the rest, a pytree.

    Attributes:
      log_odds: what abstaining (row 0) or a vote v (row v + 1) adds to the log-odds of each class, ``(m, k + 1, k)``.
      prior_log_odds: of each class, ``(k,)``.
      accuracies: the probability that a function is right where it votes, for each class against the rest, ``(k, m)``.
    """

    log_odds: Float[AnyArray, "*batch m k1 k"]
    prior_log_odds: Float[AnyArray, "*batch k"]
    accuracies: Float[AnyArray, "*batch k m"]

    def posterior(self, votes: Int[AnyArray, "n m"]) -> Float[Array, "n k"]:
        """Returns the probability of each class; with more than two, those against the rest scaled to sum to one.

        Raises:
          ValueError: if the votes have not one column a function, or lie outside of the range.
        """
        return _posterior(self._checked(votes), jnp.asarray(self.log_odds), jnp.asarray(self.prior_log_odds))

    def predict(self, votes: Int[AnyArray, "n m"]) -> Int[Array, " n"]:
        """Returns the class with the largest log-odds, the first on ties, and -1 where no function votes.

        Of many functions, several classes may have a probability against the rest that rounds to one, and so the same
        posterior; their log-odds still differ.

        Raises:
          ValueError: as :meth:`posterior`.
        """
        log_odds = _summed(self._checked(votes), jnp.asarray(self.log_odds), jnp.asarray(self.prior_log_odds))
        return hard_labels(log_odds, votes)

    def _checked(self, votes: Int[AnyArray, "n m"]) -> Int[Array, "n m"]:
        m, _, k = self.log_odds.shape
        return checked_columns(votes, m, k)


def fit(votes: Int[AnyArray, "n m"], k: int, *, class_balance: Float[AnyArray, " k"] | None = None) -> TripletModel:
    """Solves all triplets in closed form.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``, of at least three functions.
      k: the number of classes.
      class_balance: the probability of each class, ``(k,)``; equal by default.

    Returns:
      The fitted model.

    Raises:
      ValueError: if the votes or the balance are not sound, or there are fewer than three functions.
    """
    votes = checked_votes(votes, k, at_least=3)
    return _fit(votes, checked_balance(class_balance, k), k=k)


@functools.partial(jax.jit, static_argnames="k")
@jax.default_matmul_precision("highest")
def _fit(votes: Array, balance: Array, *, k: int) -> TripletModel:
    n, m = votes.shape
    counts = joint_counts(votes, k)
    rates = jnp.diagonal(counts).reshape(m, k) / n
    against = functools.partial(_against_the_rest, counts.reshape(m, k, m, k), n, rates)
    if k == 2:
        table, accuracies = against(1, balance[1])
        tables, accuracies = jnp.stack([-table, table], axis=-1), jnp.stack([accuracies, accuracies])
    else:
        tables, accuracies = jax.vmap(against)(jnp.arange(k), balance)
        tables = jnp.moveaxis(tables, 0, -1)
    return TripletModel(tables, jnp.log(balance) - jnp.log1p(-balance), accuracies)


def _against_the_rest(counts: Array, n: int, rates: Array, label: Array | int, balance: Array) -> tuple[Array, Array]:
    """The log-odds ``(m, k + 1)`` that votes add to a class, and the accuracies ``(m,)``."""
    m, k = rates.shape
    sign = jnp.where(jnp.arange(k) == label, 1.0, -1.0)
    # Divided last: whole numbers cancel to an exact zero, and of shares a rounding error is left to divide by.
    agreement = jnp.einsum("iajb,a,b->ij", counts, sign, sign) / n
    signed = _mean_over_triplets(agreement)
    votes, positive = rates.sum(axis=1), rates[:, label]
    right = (signed + votes) / 2  # E[vote * class] is the rate of right votes less that of wrong ones
    both = (positive + right - (1 - balance) * votes) / 2
    cells = jnp.stack([both, positive - both, balance * votes - both, right - both], axis=1)
    cells = jnp.abs(cells)  # an impossible table is folded back, as the released code does
    share = 1 / (cells.sum(axis=1, keepdims=True) + (1 - votes)[:, None])
    cells = jnp.maximum(cells * share, 1e-12)
    silent = 0.0  # abstaining does not depend on the class
    for_vote = jnp.log(cells[:, 0] / cells[:, 1]) - jnp.log(balance / (1 - balance))
    against_vote = jnp.log(cells[:, 2] / cells[:, 3]) - jnp.log(balance / (1 - balance))
    by_vote = jnp.where(jnp.arange(k) == label, for_vote[:, None], against_vote[:, None])
    table = jnp.concatenate([jnp.full((m, 1), silent), by_vote], axis=1)
    return table, right / jnp.where(votes > 0, votes, 1)


def _mean_over_triplets(agreement: Array) -> Array:
    """The mean over pairs j < k, both not i, of ``sqrt(|A_ij A_ik / A_jk|)``; a pair that never agrees counts as 0."""
    m = agreement.shape[0]
    root = jnp.sqrt(jnp.abs(agreement)) * (1 - jnp.eye(m))
    inverse = jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1), 0)
    return jnp.einsum("ij,jk,ik->i", root, inverse, root) / ((m - 1) * (m - 2))


@jax.jit
def _summed(votes: Array, log_odds: Array, prior_log_odds: Array) -> Array:
    return mapped_over_rows(lambda block: prior_log_odds + summed_over_functions(block, log_odds), votes)


@jax.jit
def _posterior(votes: Array, log_odds: Array, prior_log_odds: Array) -> Array:
    # In logs, since against the rest every class may be less probable than the smallest float.
    return jax.nn.softmax(jax.nn.log_sigmoid(_summed(votes, log_odds, prior_log_odds)), axis=1)
