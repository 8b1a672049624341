"""Checks that methods which take scores share: a clear ``ValueError`` before any compiled code runs.

Shapes and dtypes are always checked. Values are checked only where they are known: inside ``jit``, ``vmap`` or
``grad`` an argument is a tracer without a value, and the check of values is left to the caller outside.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from zsml_jax.evaluate.validation import is_traced
from zsml_jax.typing import AnyArray, Array, Scalar

#: How far from one the sum of a label distribution may be: float32 frequencies of many classes stay well inside.
SUM_TOLERANCE = 1e-4


def check_log_probs(log_probs: AnyArray, name: str = "log_probs") -> None:
    """Checks class scores in nats: a float array of two axes, no NaN, no +inf, no row without a possible class.

    An entry of -inf is a class of probability zero. Rows need not be normalised.

    Args:
      log_probs: log-probabilities or logits, ``(n, k)``, in nats.
      name: what the caller names the argument, for the message.

    Raises:
      ValueError: if the array is not ``(n, k)`` with n and k positive, not of a float type, or holds a NaN, a +inf or
        a row of only -inf.
    """
    shape = np.shape(log_probs)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"{name} must have shape (n, k) with n >= 1 and k >= 1, got shape {shape}")
    if not jnp.issubdtype(jnp.result_type(log_probs), jnp.floating):
        raise ValueError(f"{name} must hold floats, got dtype {jnp.result_type(log_probs)}")
    if is_traced(log_probs):
        return
    # The largest entry of a row is finite exactly when the row is sound, as a maximum passes NaN on. It is taken where
    # the array lies, and at once even while something else is traced.
    with jax.ensure_compile_time_eval():
        largest = np.asarray(log_probs.max(axis=1), dtype=np.float32)
    row = _first(~(largest > -np.inf) | (largest == np.inf))
    if row is not None:
        if np.isneginf(float(largest[row])):
            raise ValueError(f"{name} must leave each row a possible class; all entries of row {row} are -inf")
        raise ValueError(f"{name} must hold neither NaN nor +inf; row {row} does")


def checked_log_probs(log_probs: AnyArray, name: str = "log_probs") -> Array:
    """Returns the log-probabilities as a JAX array of at least float32, after :func:`check_log_probs`."""
    check_log_probs(log_probs, name)
    return jnp.asarray(log_probs, dtype=jnp.promote_types(jnp.result_type(log_probs), jnp.float32))


def check_label_distribution(label_distribution: AnyArray, k: int, name: str = "label_distribution") -> None:
    """Checks a distribution over k classes: shape ``(k,)``, finite, non-negative, summing to one within 1e-4.

    Args:
      label_distribution: the probability of each class, ``(k,)``.
      k: the number of classes.
      name: what the caller names the argument, for the message.

    Raises:
      ValueError: if it is no distribution over k classes.
    """
    _check_one_axis(label_distribution, k, name, "one probability for each of the k classes")
    if is_traced(label_distribution):
        return
    values = np.asarray(label_distribution, dtype=np.float64)
    _check_non_negative(values, name)
    if abs(values.sum() - 1.0) > SUM_TOLERANCE:
        raise ValueError(f"{name} must sum to 1 within {SUM_TOLERANCE:g}, got a sum of {values.sum():.6g}")


def check_sample_weights(sample_weights: AnyArray, n: int, name: str = "sample_weights") -> None:
    """Checks weights of n examples: shape ``(n,)``, finite, non-negative, not all zero. They need not sum to one.

    Args:
      sample_weights: the weight of each example, ``(n,)``.
      n: the number of examples.
      name: what the caller names the argument, for the message.

    Raises:
      ValueError: if the weights are of another shape, negative, not finite, or all zero.
    """
    _check_one_axis(sample_weights, n, name, "one weight for each of the n examples")
    if is_traced(sample_weights):
        return
    values = np.asarray(sample_weights, dtype=np.float64)
    _check_non_negative(values, name)
    if not values.any():
        raise ValueError(f"{name} must hold a positive weight, got {n} zeros")


def checked_sample_weights(
    sample_weights: AnyArray | None, n: int, dtype: DTypeLike, name: str = "sample_weights"
) -> Array:
    """Returns the weights scaled to sum to one, after :func:`check_sample_weights`; ``None`` means equal weights."""
    if sample_weights is None:
        return jnp.full(n, 1 / n, dtype=dtype)
    check_sample_weights(sample_weights, n, name)
    weights = jnp.asarray(sample_weights, dtype=dtype)
    return weights / weights.sum()


def check_labels(labels: AnyArray, n: int, k: int, name: str = "labels") -> None:
    """Checks class indices of n examples: integers of shape ``(n,)`` between 0 and k - 1.

    Args:
      labels: the class index of each example, ``(n,)``.
      n: the number of examples.
      k: the number of classes.
      name: what the caller names the argument, for the message.

    Raises:
      ValueError: if the labels are of another shape, no integers, or outside of the range.
    """
    _check_one_axis(labels, n, name, "one label for each of the n examples")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"{name} must hold integers, got dtype {jnp.result_type(labels)}")
    if is_traced(labels):
        return
    values = np.asarray(labels)
    if (row := _first((values < 0) | (values >= k))) is not None:
        raise ValueError(f"{name} must lie between 0 and {k - 1}, got {values[row]} at index {row}")


def checked_scalar(value: Scalar, name: str, dtype: DTypeLike, *, positive: bool = False) -> Array:
    """Returns a hyperparameter, or an array of them, as a JAX array that may be traced.

    Args:
      value: the hyperparameter.
      name: what the caller names the argument, for the message.
      dtype: what to convert it to.
      positive: whether zero is refused too.

    Raises:
      ValueError: if it is negative, not finite, or zero where it must be positive.
    """
    if not is_traced(value):
        values = np.asarray(value, dtype=np.float64)
        if not np.isfinite(values).all() or (values < 0).any() or (positive and (values == 0).any()):
            raise ValueError(f"{name} must be {'positive' if positive else 'non-negative'} and finite, got {value}")
    return jnp.asarray(value, dtype=dtype)


def _check_one_axis(array: AnyArray, length: int, name: str, meaning: str) -> None:
    shape = np.shape(array)
    if shape != (length,) or length == 0:
        raise ValueError(f"{name} must have shape ({length},) and not be empty, {meaning}; got shape {shape}")


def _check_non_negative(values: np.ndarray, name: str) -> None:
    if (index := _first(~np.isfinite(values))) is not None:
        raise ValueError(f"{name} must be finite, got {values[index]} at index {index}")
    if (index := _first(values < 0)) is not None:
        raise ValueError(f"{name} must not be negative, got {values[index]:.6g} at index {index}")


def _first(mask: np.ndarray) -> int | None:
    return int(mask.argmax()) if mask.any() else None
