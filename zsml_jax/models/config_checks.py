"""Checks that the configurations of all models share; each error names the field, what it is and what it must be."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp

from zsml_jax.models.activations import ACTIVATIONS


def check_sizes(config: Any, *names: str) -> None:
    """Checks that fields are positive integers.

    Args:
      config: the configuration.
      *names: the fields.

    Raises:
      ValueError: if one is not.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")


def check_activation(name: str, *, field: str = "activation") -> None:
    """Checks the name of an activation.

    Raises:
      ValueError: if it is none of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"{field} must be one of {sorted(ACTIVATIONS)}, got {name!r}")


def check_heads(width: int, num_heads: int) -> None:
    """Checks that heads divide a width.

    Raises:
      ValueError: if they do not.
    """
    if width % num_heads:
        raise ValueError(f"num_heads must divide the width {width}, got {num_heads}")


def check_dtype(dtype: jax.typing.DTypeLike) -> str:
    """Returns the name of a floating-point dtype.

    Raises:
      ValueError: if it is no dtype, or not a floating-point one.
    """
    try:
        known = jnp.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype must be a floating-point dtype, such as 'bfloat16', got {dtype!r}") from error
    if not jnp.issubdtype(known, jnp.floating):
        raise ValueError(f"dtype must be a floating-point dtype, got {known}")
    return known.name
