"""Shuffled batches of rows that lie in memory, for steps that are traced, as those of a study are."""

import jax
import jax.numpy as jnp
from jaxtyping import Int

from zsml_jax.typing import AnyArray, Array, Key, PyTree


def shuffled_batch(rows: PyTree, step: Int[AnyArray, ""], batch_size: int, *, key: Key) -> PyTree:
    """Returns the batch of one step; each epoch goes once over the rows, in an order of its own.

    >>> rows = jnp.arange(4)
    >>> steps = [shuffled_batch(rows, jnp.int32(step), 2, key=jax.random.key(0)) for step in (0, 1)]
    >>> sorted(jnp.concatenate(steps).tolist())
    [0, 1, 2, 3]

    Args:
      rows: a pytree of arrays of n rows each.
      step: the number of the step, counted from 0.
      batch_size: rows of a batch, at most n; those that fill no batch are left out, other ones each epoch.
      key: what the orders depend on.
    """
    count = len(jax.tree.leaves(rows)[0])
    epoch, position = jnp.divmod(step, count // batch_size)
    order = epoch_order(count, epoch, key=key)
    chosen = jax.lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
    return jax.tree.map(lambda leaf: leaf[chosen], rows)


def epoch_order(count: int, epoch: Int[AnyArray, ""], *, key: Key) -> Int[Array, " count"]:
    """Returns the order in which an epoch of :func:`shuffled_batch` goes over the rows."""
    return jax.random.permutation(jax.random.fold_in(key, epoch), count)
