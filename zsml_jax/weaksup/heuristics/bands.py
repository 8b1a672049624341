r"""Abstain bands: a heuristic votes only where it is sure enough.

With class prior b and width :math:`\beta` the vote is the most probable class if its probability is at least
:math:`b + \beta`, which for two classes and b = 1/2 is Snuba's rule on both sides. Each heuristic takes the width,
out of a grid, that gives its votes on labelled examples the best weighted F1, where abstaining is a class of its own
that no example has (Varma and Ré, VLDB 2018, section 4.1; the grid is the released code's).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.vote_matrix import ABSTAIN

#: Widths to choose from; those below 0.25 would let a heuristic vote on nearly all examples.
WIDTHS = np.linspace(0.25, 0.45, 10)


def votes(probs: Float[Array, "n h k"], widths: Float[AnyArray, " h"], *, prior: Scalar) -> Int[Array, "n h"]:
    """Returns the votes: the most probable class, the first on ties, or -1 inside of the band."""
    # Halves and tenths are no binary fractions: without the slack a probability of 0.75 would miss a bar of 0.75.
    sure = probs.max(axis=-1) >= prior + jnp.asarray(widths) - 1e-6
    return jnp.where(sure, jnp.argmax(probs, axis=-1), ABSTAIN)


def best_widths(probs: Float[Array, "n h k"], labels: Int[Array, " n"], *, prior: Scalar) -> Float[Array, " h"]:
    """Returns, for each heuristic, the width with the best weighted F1 on labelled examples; the widest of equals."""
    grid = jnp.asarray(WIDTHS, probs.dtype)

    def score(width: Array) -> Array:
        given = votes(probs, jnp.broadcast_to(width, probs.shape[1:2]), prior=prior)
        return weighted_f1(given, labels, probs.shape[-1])

    scores = jax.vmap(score)(grid)  # (widths, h)
    return grid[len(grid) - 1 - jnp.argmax(scores[::-1], axis=0)]


def weighted_f1(votes: Int[Array, "n h"], labels: Int[Array, " n"], k: int) -> Float[Array, " h"]:
    """Returns the mean F1 over classes by their share of the labels, for each column of votes."""
    truth = jax.nn.one_hot(labels, k)  # (n, k)
    predicted = votes[:, :, None] == jnp.arange(k)
    right = jnp.einsum("nhk,nk->hk", predicted.astype(truth.dtype), truth, precision="highest")
    sizes = truth.sum(axis=0)
    f1 = 2 * right / jnp.maximum(predicted.sum(axis=0) + sizes, 1)
    return (f1 * sizes).sum(axis=1) / jnp.maximum(sizes.sum(), 1)
