"""Refuses numbers out of their range before anything is compiled."""

import jax
import numpy as np

from zsml_jax.typing import Scalar


def require_not_negative(name: str, value: Scalar) -> None:
    """Raises a ValueError for a number that is negative or not finite; traced ones, of a study, are not looked at."""
    if not _is_traced(value) and not (np.all(np.isfinite(value)) and np.all(np.greater_equal(value, 0))):
        raise ValueError(f"{name} must be finite and not negative, got {value}")


def require_positive(name: str, value: Scalar) -> None:
    """Raises a ValueError for a number that is not positive and finite; traced ones are not looked at."""
    if not _is_traced(value) and not (np.all(np.isfinite(value)) and np.all(np.greater(value, 0))):
        raise ValueError(f"{name} must be finite and positive, got {value}")


def _is_traced(value: Scalar) -> bool:
    return isinstance(value, jax.core.Tracer)
