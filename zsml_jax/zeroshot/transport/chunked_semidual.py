"""The semi-dual of scores that are read in chunks: :mod:`.semidual` driven from the host."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.typing import Array, PyTree, Scalar
from zsml_jax.zeroshot.transport import annealing, row_blocks, semidual
from zsml_jax.zeroshot.transport.marginals import Marginal
from zsml_jax.zeroshot.transport.row_chunks import CoarseRows, RowChunks


def anneal(
    chunks: RowChunks | CoarseRows,
    marginal: Marginal,
    epsilon: float,
    *,
    scale: float,
    tolerance: float,
    max_iterations: int,
    dtype: jax.typing.DTypeLike | None = None,
) -> annealing.AnnealingState:
    """Maximises the semi-dual over chunks of rows, one of them in memory at a time.

    Args:
      chunks: the rows, with masses that sum to one.
      marginal: what is known of the label distribution.
      epsilon: the temperature of the last level, nats.
      scale: the :func:`mean_margin` of the scores, from which the temperature is annealed, nats.
      tolerance: the L1 error of the marginal at which to stop.
      max_iterations: passes over the rows at most.
      dtype: the type in which exponentials are taken.

    Returns:
      The last state.
    """
    active = marginal.active
    zero = jnp.zeros(chunks.k, marginal.center.dtype)
    state = annealing.start(marginal, jnp.maximum(epsilon, 4 * scale), zero)
    while not bool(state.done) and int(state.iteration) < max_iterations:
        mass = class_mass(chunks, state.dual, state.epsilon, active, dtype=dtype)
        state = _advance(state, mass, marginal, epsilon, tolerance)
    return state


def class_mass(
    chunks: RowChunks | CoarseRows,
    dual: Float[Array, " k"],
    epsilon: Scalar,
    active: Bool[Array, " k"],
    *,
    dtype: jax.typing.DTypeLike | None = None,
) -> Float[Array, " k"]:
    """Returns :func:`.semidual.class_mass` summed over chunks."""
    return _sum(_chunk_mass(rows, weights, dual, epsilon, active, dtype=dtype) for rows, weights in chunks)


def evaluate(
    chunks: RowChunks | CoarseRows, dual: Float[Array, " k"], epsilon: Scalar, active: Bool[Array, " k"]
) -> semidual.Pass:
    """Returns :func:`.semidual.evaluate` summed over chunks."""
    return _sum(_chunk_pass(rows, weights, dual, epsilon, active) for rows, weights in chunks)


def mean_margin(chunks: RowChunks | CoarseRows, active: Bool[Array, " k"]) -> float:
    """Returns :func:`.semidual.mean_margin` over chunks."""
    return float(_sum(_chunk_margin(rows, weights, active) for rows, weights in chunks))


def _sum(parts: Iterator[PyTree]) -> PyTree:
    """Adds up, waiting for each part: chunks that are only queued would all be in memory at once."""
    return functools.reduce(row_blocks.add_trees, map(jax.block_until_ready, parts))


_advance = jax.jit(annealing.advance)
_chunk_mass = jax.jit(semidual.class_mass, static_argnames="dtype")
_chunk_pass = jax.jit(semidual.evaluate)
_chunk_margin = jax.jit(semidual.mean_margin)
