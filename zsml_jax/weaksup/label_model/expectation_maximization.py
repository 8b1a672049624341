"""EM over independent functions: one pass over the votes an iteration, which never holds the posterior as a whole."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.label_model.vote_model import VoteModel, summed_over_functions
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_balance, checked_votes, summed_over_rows

#: The smallest probability of a vote; a vote that was never seen with a class is not impossible.
FLOOR = 1e-10

#: From the expected counts ``(m, k + 1, k)`` of votes with classes to log-likelihoods of the same shape.
Maximization = Callable[[Array, Scalar], Array]


def fit(
    votes: AnyArray,
    k: int,
    maximize: Maximization,
    *,
    class_balance: AnyArray | None,
    abstains_inform: bool,
    smoothing: Scalar,
    tolerance: Scalar,
    max_iterations: int,
) -> VoteModel:
    """Runs EM from the shares of the votes until the mean log-likelihood gains less than the tolerance.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``.
      k: the number of classes.
      maximize: the M-step.
      class_balance: the prior, which is then held; learned if None.
      abstains_inform: whether the M-step's abstaining depends on the class. Examples where all abstain then count in
        the prior as the others do; otherwise they say nothing about it.
      smoothing: handed to the M-step.
      tolerance: in nats an example.
      max_iterations: passes at most.

    Returns:
      The model.

    Raises:
      ValueError: if the votes or the balance are not sound.
    """
    votes = checked_votes(votes, k)
    balance = None if class_balance is None else checked_balance(class_balance, k)
    options = (smoothing, tolerance, max_iterations)
    return _fit(votes, balance, *options, k=k, maximize=maximize, abstains_inform=abstains_inform)


@functools.partial(jax.jit, static_argnames=("k", "maximize", "abstains_inform"))
def _fit(
    votes: Array,
    class_balance: Array | None,
    smoothing: Array,
    tolerance: Array,
    max_iterations: Array,
    *,
    k: int,
    maximize: Maximization,
    abstains_inform: bool,
) -> VoteModel:
    n = votes.shape[0]
    dtype = jnp.result_type(float)

    def counts_of(posterior: Array, block: Array) -> Array:
        seen = [jnp.dot((block == v).T.astype(dtype), posterior, precision="highest") for v in range(-1, k)]
        return jnp.stack(seen, axis=1)

    def classes_of(posterior: Array, block: Array) -> Array:
        voted = (block != ABSTAIN).any(axis=1, keepdims=True)
        return jnp.where(abstains_inform | voted, posterior, 0).sum(axis=0)

    def by_majority(block: Array) -> tuple[Array, Array]:
        shares = jnp.stack([(block == v).sum(axis=1) for v in range(k)], axis=1).astype(dtype)
        total = shares.sum(axis=1, keepdims=True)
        posterior = jnp.where(total > 0, shares / jnp.where(total > 0, total, 1), 1 / k)
        return counts_of(posterior, block), classes_of(posterior, block)

    def expect(log_prior: Array, log_likelihood: Array) -> tuple[Array, Array, Array]:
        def block_sums(block: Array) -> tuple[Array, Array, Array]:
            joint = log_prior + summed_over_functions(block, log_likelihood)
            evidence = jax.scipy.special.logsumexp(joint, axis=1, keepdims=True)
            posterior = jnp.exp(joint - evidence)
            return counts_of(posterior, block), classes_of(posterior, block), evidence.sum()

        return summed_over_rows(block_sums, votes)

    def prior_of(classes: Array) -> Array:
        prior = classes / classes.sum() if class_balance is None else class_balance
        return jnp.log(jnp.maximum(prior, FLOOR))

    counts, classes = summed_over_rows(by_majority, votes)
    log_prior, log_likelihood = prior_of(classes), maximize(counts, smoothing)

    def unfinished(state: tuple) -> Array:
        *_, gain, iterations = state
        return (gain > tolerance) & (iterations < max_iterations)

    def step(state: tuple) -> tuple:
        log_prior, log_likelihood, previous, _, iterations = state
        counts, classes, evidence = expect(log_prior, log_likelihood)
        evidence = evidence / n
        following = prior_of(classes), maximize(counts, smoothing)
        return *following, evidence, jnp.abs(evidence - previous), iterations + 1

    start = (log_prior, log_likelihood, jnp.asarray(-jnp.inf, dtype), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
    log_prior, log_likelihood, _, gain, iterations = jax.lax.while_loop(unfinished, step, start)
    return VoteModel(log_prior, log_likelihood, converged=gain <= tolerance, iterations=iterations)
