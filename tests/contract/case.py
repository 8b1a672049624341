"""A row of the contract's table."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a method, and the part of its output that has a derivative."""

    name: str
    call: Callable[[jax.Array], Any]
    inputs: Callable[[int], jax.Array]
    smooth: Callable[[Any], Any] | None = None
    tolerance: float = 2e-4
    """Relative, and half of it absolute, of floats under jit and vmap."""
    is_network: bool = False
    """Whether it trains a network, whose products may have the accelerator's own precision."""


def whole(output):
    return output
