r"""The label aggregator of Snuba's verifier: naive Bayes, stopped soon after counting votes.

Weights of the votes start at one and drift towards the log-odds of the accuracies that they themselves imply,

.. math:: \dot w_j = \frac{n_j}{\sum_i n_i} \big( \ell_j(w) - w_j \big), \quad
    \ell_j = \log \frac{(k - 1) a_j}{1 - a_j}, \quad a_j = E[p_w(y = \lambda_j) | \lambda_j \text{ votes}] ,

for the time of one, where :math:`n_j` counts the votes of function j. That is what 1,000 steps at the released code's
rate of 0.001 amount to; a few dozen larger steps give the same weights. Functions that are fitted on the same hundred
labels err together, which leads the converged model (:mod:`.label_model.naive_bayes`) astray.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import Array
from zsml_jax.weaksup.label_model.vote_model import summed_over_functions
from zsml_jax.weaksup.vote_matrix import ABSTAIN, summed_over_rows

_STEPS = 25


def fit_weights(votes: Int[Array, "n m"], k: int) -> Float[Array, " m"]:
    """Returns the weight of each function's vote, in nats; a function that never votes keeps the weight one."""
    m = votes.shape[1]
    voted = (votes != ABSTAIN).sum(axis=0)
    share = voted / jnp.maximum(voted.sum(), 1)

    def expected_right(weights: Array) -> Array:
        def block(rows: Array) -> Array:
            posterior = aggregate(rows, weights, k)
            seen = [jnp.dot((rows == y).T.astype(posterior.dtype), posterior[:, y]) for y in range(k)]
            return jnp.stack(seen).sum(axis=0)

        return summed_over_rows(block, votes)

    def step(weights: Array, _: None) -> tuple[Array, None]:
        accuracy = jnp.clip(expected_right(weights) / jnp.maximum(voted, 1), 1e-6, 1 - 1e-6)
        implied = jnp.clip(jnp.log((k - 1) * accuracy / (1 - accuracy)), -10, 10)
        return weights + share * (implied - weights) / _STEPS, None

    return jax.lax.scan(step, jnp.ones(m), None, length=_STEPS)[0]


def aggregate(votes: Int[Array, "n m"], weights: Float[Array, " m"], k: int) -> Float[Array, "n k"]:
    """Returns the posterior, in which a vote adds its weight to the log-odds of its class."""
    table = weights[:, None, None] * jnp.eye(k + 1, k, -1)
    return jax.nn.softmax(summed_over_functions(votes, table), axis=1)
