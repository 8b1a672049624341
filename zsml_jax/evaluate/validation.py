"""Checks that the metrics share: a clear ``ValueError`` before any compiled code runs.

Shapes are always checked. Values are checked only where they are known: inside ``jit``, ``vmap`` or ``grad`` an
argument is a tracer without a value, and the check of values is left to the caller outside.
"""

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.typing import AnyArray, Array, Scalar

#: How far from one a row of class probabilities may sum: bfloat16 softmax outputs stay inside.
SUM_TOLERANCE = 1e-2


def is_traced(*arrays: AnyArray | Scalar) -> bool:
    """Whether any of the arrays is a tracer, whose values cannot be read."""
    return any(isinstance(a, jax.core.Tracer) for a in arrays)


def check_indices(indices: AnyArray, n: int, k: int | None, name: str) -> None:
    """Checks integers of shape ``(n,)``, not negative and less than k.

    Args:
      indices: class or group indices, ``(n,)``.
      n: the number of examples, at least one.
      k: the number of classes or groups; ``None`` where any number will do.
      name: what the caller names the argument, for the message.

    Raises:
      ValueError: if the indices are of another shape, no integers, or outside of the range.
    """
    if np.shape(indices) != (n,) or n == 0:
        raise ValueError(f"{name} must have shape ({n},) and not be empty, got shape {np.shape(indices)}")
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        raise ValueError(f"{name} must hold integers, got dtype {jnp.result_type(indices)}")
    if is_traced(indices):
        return
    # By numpy, since JAX would trace it where something else is traced.
    values = np.asarray(indices)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise ValueError(f"{name} must not be negative, got {low}")
    if k is not None and high >= k:
        raise ValueError(f"{name} must lie between 0 and {k - 1}, got {high}")


def check_scores(scores: AnyArray, name: str, *, probabilities: bool = False) -> tuple[int, int]:
    """Checks floats of shape ``(n, k)`` without NaN, and returns the shape.

    Args:
      scores: one row per example and one column per class.
      name: what the caller names the argument, for the message.
      probabilities: whether each row must be a distribution: entries in [0, 1] that sum to one within 1e-2.

    Returns:
      The number of examples and of classes.

    Raises:
      ValueError: if the scores are of another shape or type, hold a NaN, or are no probabilities where they must be.
    """
    shape = np.shape(scores)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must have shape (n, k) with n >= 1 and k >= 1, got shape {shape}")
    if not jnp.issubdtype(jnp.result_type(scores), jnp.floating):
        raise ValueError(f"{name} must hold floats, got dtype {jnp.result_type(scores)}")
    if not is_traced(scores):
        values = np.asarray(scores, dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"{name} must not hold NaN; row {int(np.isnan(values).any(axis=1).argmax())} does")
        if probabilities:
            bad = (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE)
            if bad.any():
                raise ValueError(
                    f"{name} must hold non-negative rows that sum to 1 within {SUM_TOLERANCE:g}; "
                    f"row {int(bad.argmax())} is {values[bad.argmax()]}"
                )
    return shape[0], shape[1]


def checked_weights(weights: AnyArray | None, n: int, name: str = "weights") -> Array:
    """Returns the weights scaled to sum to one; ``None`` stands for equal weights.

    Args:
      weights: non-negative weights, ``(n,)``, in any unit.
      n: the number of examples.
      name: what the caller names the argument, for the message.

    Returns:
      Weights of at least float32, ``(n,)``.

    Raises:
      ValueError: if the weights are of another shape, negative, not finite, or all zero.
    """
    if weights is None:
        return jnp.full(n, 1 / n)
    if np.shape(weights) != (n,):
        raise ValueError(f"{name} must have shape ({n},), got shape {np.shape(weights)}")
    if not is_traced(weights):
        values = np.asarray(weights, dtype=np.float64)
        if not np.isfinite(values).all() or (values < 0).any() or not values.any():
            raise ValueError(f"{name} must be finite, non-negative and not all zero, got {values}")
    scaled = jnp.asarray(weights, dtype=jnp.promote_types(jnp.result_type(weights), jnp.float32))
    return scaled / scaled.sum()
