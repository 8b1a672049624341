"""Votes counted, all functions alike."""

import jax.numpy as jnp
from jaxtyping import Int

from zsml_jax.typing import AnyArray
from zsml_jax.weaksup.label_model.weighted_vote import VoteShare
from zsml_jax.weaksup.vote_matrix import checked_votes


def fit(votes: Int[AnyArray, "n m"], k: int) -> VoteShare:
    """Returns the model whose posterior is each class's share of the votes.

    >>> import numpy as np
    >>> votes = np.array([[0, 1, 1, 1], [-1, 0, -1, -1]])
    >>> fit(votes, 2).posterior(votes).tolist()
    [[0.25, 0.75], [1.0, 0.0]]

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``; nothing but m is learned from them.
      k: the number of classes.

    Raises:
      ValueError: if the votes are not sound.
    """
    m = checked_votes(votes, k).shape[1]
    return VoteShare(weights=jnp.ones(m), fallback=jnp.full(k, 1 / k))
