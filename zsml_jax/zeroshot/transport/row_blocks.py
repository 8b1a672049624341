"""Map-reduce over blocks of rows, so that no pass needs a second array of the scores' size."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import Array, PyTree

#: Rows are visited in blocks of about this many matrix entries: what a core's cache or an accelerator likes.
BLOCK_ENTRIES_CPU = 2**21
BLOCK_ENTRIES_ACCELERATOR = 2**26


def add_trees(total: PyTree, part: PyTree) -> PyTree:
    """Returns the sum of two pytrees, leaf by leaf."""
    return jax.tree.map(jnp.add, total, part)


def map_blocks(
    function: Callable[..., tuple[PyTree, PyTree]],
    log_probs: Float[Array, "n k"],
    columns: tuple[Array, ...],
    reduce: Callable[[PyTree, PyTree], PyTree] = add_trees,
) -> tuple[PyTree, PyTree]:
    """Applies ``function(rows, mass, ...)`` to blocks of rows, without a padded copy of the scores.

    The last block starts early enough to be whole; rows that an earlier block had come with zero mass.

    Args:
      function: returns arrays with a leading row axis, and arrays to reduce over the blocks.
      log_probs: class scores, ``(n, k)``.
      columns: the row masses, ``(n,)``, and further arrays with a leading axis of n, handed on in blocks.
      reduce: combines the second outputs of two blocks; their sum by default.

    Returns:
      The first outputs, with n rows, and the reduced second outputs.
    """
    n, k = log_probs.shape
    entries = BLOCK_ENTRIES_CPU if jax.default_backend() == "cpu" else BLOCK_ENTRIES_ACCELERATOR
    size = min(n, max(1, entries // k))
    n_blocks = -(-n // size)

    def block(index: Array | int) -> tuple[PyTree, PyTree]:
        begin = jnp.minimum(index * size, n - size)
        slices = [jax.lax.dynamic_slice_in_dim(x, begin, size) for x in (log_probs, *columns)]
        slices[1] = jnp.where(begin + jnp.arange(size) >= index * size, slices[1], 0.0)
        return function(*slices)

    if n_blocks == 1:
        return function(log_probs, *columns)

    def body(total: PyTree, index: Array) -> tuple[PyTree, PyTree]:
        rows, part = block(index)
        return reduce(total, part), rows

    first_rows, first = block(0)
    total, rows = jax.lax.scan(body, first, jnp.arange(1, n_blocks))
    repeated = n_blocks * size - n

    def join(first_block: Array, blocks: Array) -> Array:
        flat = blocks[:-1].reshape(-1, *blocks.shape[2:])
        return jnp.concatenate([first_block, flat, blocks[-1, repeated:]])

    return jax.tree.map(join, first_rows, rows), total


def sum_over_blocks(block_sum: Callable[[Array, Array], PyTree], log_probs: Array, weights: Array) -> PyTree:
    """Sums ``block_sum(rows, mass)`` over blocks of rows."""
    _, total = map_blocks(lambda rows, mass: ((), block_sum(rows, mass)), log_probs, (weights,))
    return total
