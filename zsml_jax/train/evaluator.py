"""Measurements between the steps of a run."""

import dataclasses
from collections.abc import Callable, Mapping

from zsml_jax.typing import Params, Scalar


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Calls a function every so many steps, and after the last one.

    Attributes:
      name: goes before the metrics' names: ``validation`` makes ``loss`` to ``validation/loss``.
      run: parameters to metrics. It may jit, iterate over its own data, and draw.
      every: the number of steps between two calls.
      averaged: whether it gets the averaged parameters, where the run keeps an average.
    """

    name: str
    run: Callable[[Params], Mapping[str, Scalar]]
    every: int
    averaged: bool = True

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
