"""Votes drawn from a known model, whose posterior is the best that any label model can give."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key, Scalar
from zsml_jax.weaksup.label_model.vote_model import VoteModel
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_balance


class VoteProblem(NamedTuple):
    """Votes with everything known that real data hides, a pytree.

    Attributes:
      votes: classes, or -1 for abstain, ``(n, m)``.
      labels: the classes that the votes were drawn for, ``(n,)``.
      oracle: the model that drew them; its posterior is Bayes' rule.
    """

    votes: Int[Array, "*batch n m"]
    labels: Int[Array, "*batch n"]
    oracle: VoteModel


def independent_votes(
    key: Key,
    n: int,
    accuracies: Float[AnyArray, " m"],
    *,
    k: int = 2,
    propensities: Scalar | Float[AnyArray, " m"] = 1.0,
    class_balance: Float[AnyArray, " k"] | None = None,
) -> VoteProblem:
    """Draws functions that are independent given the class, each with one accuracy, errors spread evenly.

    Args:
      key: the random key.
      n: the number of examples.
      accuracies: the probability that each function is right where it votes, ``(m,)``.
      k: the number of classes.
      propensities: the probability that a function votes, one or ``(m,)``; it does not depend on the class.
      class_balance: the probability of each class, ``(k,)``; equal by default.

    Raises:
      ValueError: if the balance is not sound.
    """
    accuracy = jnp.asarray(accuracies, jnp.result_type(float))[:, None, None]
    voting = jnp.broadcast_to(jnp.asarray(propensities, accuracy.dtype), accuracy.shape[:1])[:, None, None]
    tables = voting * jnp.where(jnp.eye(k, dtype=bool), accuracy, (1 - accuracy) / (k - 1))
    abstain = jnp.broadcast_to(1 - voting, (*tables.shape[:1], 1, k))
    return votes_of_tables(key, n, jnp.concatenate([abstain, tables], axis=1), class_balance=class_balance)


def votes_of_tables(
    key: Key, n: int, tables: Float[AnyArray, "m k1 k"], *, class_balance: Float[AnyArray, " k"] | None = None
) -> VoteProblem:
    """Draws votes from any tables of independent functions.

    Args:
      key: the random key.
      n: the number of examples.
      tables: the probability of abstaining (row 0) and of each vote v (row v + 1) given the class.
      class_balance: the probability of each class, ``(k,)``; equal by default.

    Raises:
      ValueError: if the balance is not sound.
    """
    k = tables.shape[2]
    balance = checked_balance(class_balance, k)
    label_key, vote_key = jax.random.split(key)
    labels = jax.random.categorical(label_key, jnp.log(balance), shape=(n,))
    log_tables = jnp.log(jnp.maximum(jnp.asarray(tables), 1e-30))
    logits = jnp.moveaxis(log_tables, 2, 0)[labels]  # (n, m, k + 1)
    votes = jax.random.categorical(vote_key, logits, axis=2) + ABSTAIN
    oracle = VoteModel(jnp.log(balance), log_tables, converged=jnp.asarray(True), iterations=jnp.asarray(0))
    return VoteProblem(votes, labels, oracle)
