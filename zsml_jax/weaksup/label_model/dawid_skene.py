r"""Dawid and Skene's model: a table of votes given the class for each function, by EM (Applied Statistics, 1979).

.. math:: p(\lambda, y) = p(y) \prod_j \theta_{j, y, \lambda_j} .

It needs no accuracies better than chance of each function, only that the vote shares, from which EM starts, lie on
the right side.
"""

import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.label_model import expectation_maximization as em
from zsml_jax.weaksup.label_model.vote_model import VoteModel


def fit(
    votes: Int[AnyArray, "n m"],
    k: int,
    *,
    class_balance: Float[AnyArray, " k"] | None = None,
    abstains_inform: bool = False,
    smoothing: Scalar = 0.0,
    tolerance: Scalar = 1e-5,
    max_iterations: int = 200,
) -> VoteModel:
    """Fits one table for each function.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``.
      k: the number of classes.
      class_balance: the prior, ``(k,)``; learned where it is not given.
      abstains_inform: whether abstaining is a vote of its own, whose probability depends on the class. Otherwise it
        says nothing, as for annotators who did not see an example.
      smoothing: pseudo-counts added to each entry of each table, spread by no class.
      tolerance: the gain of the mean log-likelihood of an example, nats, at which to stop.
      max_iterations: passes over the votes at most.

    Returns:
      The fitted model.

    Raises:
      ValueError: if the votes or the balance are not sound.
    """
    maximize = _with_abstains if abstains_inform else _without_abstains
    return em.fit(
        votes,
        k,
        maximize,
        class_balance=class_balance,
        abstains_inform=abstains_inform,
        smoothing=smoothing,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def _without_abstains(counts: Array, smoothing: Scalar) -> Array:
    tables = _normalized(counts[:, 1:] + smoothing)
    return jnp.concatenate([jnp.zeros_like(counts[:, :1]), tables], axis=1)


def _with_abstains(counts: Array, smoothing: Scalar) -> Array:
    return _normalized(counts + smoothing)


def _normalized(counts: Array) -> Array:
    counts = jnp.maximum(counts, em.FLOOR)
    return jnp.log(counts / counts.sum(axis=1, keepdims=True))
