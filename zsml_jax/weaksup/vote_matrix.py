"""Votes of labelling functions: their form, their checks, and passes over their rows.

Votes are an integer matrix ``(n, m)``: the class that each of m functions gives to each of n examples, or
:data:`ABSTAIN`. Shapes and dtypes are always checked; values only where they are known, outside of ``jit``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.validation import check_indices, is_traced
from zsml_jax.typing import AnyArray, Array, PyTree

#: The vote of a function that says nothing.
ABSTAIN = -1

#: Rows of a block: its one-hot votes stay near the caches, and memory is bounded for millions of rows.
_ROWS = 4096


def checked_votes(votes: Int[AnyArray, "n m"], k: int, *, at_least: int = 1) -> Int[Array, "n m"]:
    """Returns the votes as a JAX array.

    Args:
      votes: classes from 0 to k - 1, or -1 for abstain. int8 saves memory.
      k: the number of classes.
      at_least: how many functions the caller needs.

    Raises:
      ValueError: if the votes are no integer matrix with that many columns, lie outside of the range, or all abstain;
        or there are fewer than two classes.
    """
    if k < 2:
        raise ValueError(f"k must be at least 2 classes, got {k}")
    shape = np.shape(votes)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"votes must have shape (n, m) with n >= 1 and m >= 1, got shape {shape}")
    if not jnp.issubdtype(jnp.result_type(votes), jnp.integer):
        raise ValueError(f"votes must hold integers, got dtype {jnp.result_type(votes)}")
    if shape[1] < at_least:
        raise ValueError(f"votes must come from at least {at_least} functions, got {shape[1]}")
    if not is_traced(votes):
        low, high = int(votes.min()), int(votes.max())
        if low < ABSTAIN or high >= k:
            raise ValueError(f"votes must lie between -1 (abstain) and {k - 1}, got values from {low} to {high}")
        if high == ABSTAIN:
            raise ValueError("votes must hold at least one vote, but all functions abstain on all examples")
    return jnp.asarray(votes)


def checked_labels(labels: Int[AnyArray, " n"], n: int, k: int, *, every_class: bool = False) -> Int[Array, " n"]:
    """Returns the labels as a JAX array.

    Args:
      labels: class indices.
      n: how many there must be.
      k: the number of classes.
      every_class: whether each class needs a label.

    Raises:
      ValueError: if the labels are of another shape, no integers, out of range, or leave out a class that needs one.
    """
    check_indices(labels, n, k, "labels")
    if every_class and not is_traced(labels):
        missing = np.setdiff1d(np.arange(k), np.asarray(labels))
        if len(missing):
            raise ValueError(f"labels must hold every class at least once; there is none of class {missing.tolist()}")
    return jnp.asarray(labels)


def checked_features(features: Float[AnyArray, "n d"], *, name: str = "features", d: int | None = None) -> Array:
    """Returns features as a float32 JAX array.

    Args:
      features: one row an example.
      name: what the caller names the argument, for the message.
      d: how many columns there must be, where that is known.

    Raises:
      ValueError: if they are no matrix of floats, are empty, hold a number that is not finite in float32, or have other
        columns.
    """
    shape = np.shape(features)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must have shape (n, d) with n >= 1 and d >= 1, got shape {shape}")
    if d is not None and shape[1] != d:
        raise ValueError(f"{name} must have {d} columns, as what was fitted, got shape {shape}")
    if not jnp.issubdtype(jnp.result_type(features), jnp.floating):
        raise ValueError(f"{name} must hold floats, got dtype {jnp.result_type(features)}")
    if not is_traced(features):
        values = np.asarray(features)
        with np.errstate(over="ignore"):
            for start in range(0, len(values), _ROWS):
                finite = np.isfinite(values[start : start + _ROWS].astype(np.float32, copy=False))
                if not finite.all():
                    row = start + int(finite.all(axis=1).argmin())
                    raise ValueError(f"{name} must be finite in float32; row {row} is not")
    return jnp.asarray(features, jnp.float32)


def checked_weights(weights: Float[AnyArray, " n"] | None, n: int) -> Float[Array, " n"]:
    """Returns the weights of n examples as a float32 JAX array, ones where nothing is given.

    Raises:
      ValueError: if there are not n, one is negative or not finite in float32, or their sum is zero or not finite.
    """
    if weights is None:
        return jnp.ones(n, jnp.float32)
    if np.shape(weights) != (n,):
        raise ValueError(f"weights must have shape ({n},), got shape {np.shape(weights)}")
    if not is_traced(weights):
        with np.errstate(over="ignore"):
            values = np.asarray(weights).astype(np.float32)
            total = values.sum()
        if not (values >= 0).all() or not 0 < total < np.inf:
            span = f"from {values.min():g} to {values.max():g}"
            raise ValueError(f"weights must be finite, not negative and of a positive, finite sum, got values {span}")
    return jnp.asarray(weights, jnp.float32)


def checked_balance(class_balance: AnyArray | None, k: int) -> Float[Array, " k"]:
    """Returns the probability of each class, equal ones where nothing is given.

    Raises:
      ValueError: if it is not k positive numbers that sum to one within 1e-4.
    """
    if class_balance is None:
        return jnp.full(k, 1 / k)
    if np.shape(class_balance) != (k,):
        raise ValueError(f"class_balance must have shape ({k},), got shape {np.shape(class_balance)}")
    if not is_traced(class_balance):
        values = np.asarray(class_balance, np.float64)
        if not (values > 0).all() or abs(values.sum() - 1) > 1e-4:
            raise ValueError(f"class_balance must be positive and sum to 1 within 1e-4, got {values.tolist()}")
    return jnp.asarray(class_balance, jnp.result_type(float))


def mapped_over_rows(function: Callable[[Any], PyTree], rows: PyTree, *, size: int = _ROWS) -> PyTree:
    """Returns ``function(rows)``, computed block by block; each row of the output depends on its own row only."""
    n = len(jax.tree.leaves(rows)[0])
    if n <= size:
        return function(rows)
    blocks, rest = _split(rows, n, size)
    output = jax.lax.map(function, blocks)
    output = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output)
    if n % size == 0:
        return output
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), output, function(rest))


def summed_over_rows(function: Callable[[Any], PyTree], rows: PyTree, *, size: int = _ROWS) -> PyTree:
    """Returns ``function(rows)`` for a function that sums over its rows, computed block by block."""
    n = len(jax.tree.leaves(rows)[0])
    if n <= size:
        return function(rows)
    blocks, rest = _split(rows, n, size)
    add = lambda total, part: jax.tree.map(jnp.add, total, part)
    first = jax.tree.map(lambda x: x[0], blocks)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first))
    total, _ = jax.lax.scan(lambda total, block: (add(total, function(block)), None), zero, blocks)
    return total if n % size == 0 else add(total, function(rest))


def _split(rows: PyTree, n: int, size: int) -> tuple[PyTree, PyTree]:
    whole = n - n % size
    blocks = jax.tree.map(lambda x: x[:whole].reshape(-1, size, *x.shape[1:]), rows)
    return blocks, jax.tree.map(lambda x: x[whole:], rows)
