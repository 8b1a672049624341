r"""The naive-Bayes generative model: one accuracy for each function, errors spread evenly, by EM.

.. math:: p(\lambda_j = y | y, \lambda_j \text{ votes}) = a_j, \quad
    p(\lambda_j = c | y, \lambda_j \text{ votes}) = \frac{1 - a_j}{k - 1} .

With two classes its fixed points are those of the aggregator that Snuba's verifier uses, whose weights are the log-odds
of the expected accuracies (Ratner et al., 2016; Varma and Ré, 2018).
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
    smoothing: Scalar = 0.0,
    tolerance: Scalar = 1e-5,
    max_iterations: int = 200,
) -> VoteModel:
    """Fits one accuracy for each function; abstaining says nothing.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``.
      k: the number of classes.
      class_balance: the prior, ``(k,)``; learned where it is not given.
      smoothing: pseudo-votes of each function, right and wrong ones each.
      tolerance: the gain of the mean log-likelihood of an example, nats, at which to stop.
      max_iterations: passes over the votes at most.

    Returns:
      The fitted model.

    Raises:
      ValueError: if the votes or the balance are not sound.
    """
    return em.fit(
        votes,
        k,
        _one_accuracy,
        class_balance=class_balance,
        abstains_inform=False,
        smoothing=smoothing,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )


def _one_accuracy(counts: Array, smoothing: Scalar) -> Array:
    voted = counts[:, 1:]
    k = voted.shape[1]
    right, total = jnp.trace(voted, axis1=1, axis2=2) + smoothing, voted.sum(axis=(1, 2)) + 2 * smoothing
    accuracy = jnp.where(total > 0, right / jnp.where(total > 0, total, 1), 1 / k)
    accuracy = jnp.clip(accuracy, em.FLOOR, 1 - 1e-7)
    table = jnp.where(jnp.eye(k, dtype=bool), jnp.log(accuracy)[:, None, None], _others(accuracy, k)[:, None, None])
    return jnp.concatenate([jnp.zeros_like(counts[:, :1]), table], axis=1)


def _others(accuracy: Array, k: int) -> Array:
    return jnp.log((1 - accuracy) / (k - 1))
