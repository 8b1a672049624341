"""What a compressed model really takes, and how many of its weights are really zero."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from zsml_jax.models.quantized import Quantized, dequantize
from zsml_jax.typing import Params


class SizeReport(NamedTuple):
    """The size of some parameters.

    Attributes:
      weights: the numbers that they stand for.
      zeros: how many of those are zero, whether they were pruned or rounded to it.
      stored_bytes: bytes of the arrays as they are; zeros of an array take as much room as anything else.
      dense_bytes: what all weights would take in float32.
    """

    weights: int
    zeros: int
    stored_bytes: int
    dense_bytes: int

    @property
    def effective_sparsity(self) -> float:
        """The share of the weights that are zero."""
        return self.zeros / self.weights

    @property
    def bits_per_weight(self) -> float:
        """Stored bits, those of scales included, for each weight."""
        return 8 * self.stored_bytes / self.weights

    @property
    def ratio(self) -> float:
        """How many times smaller the arrays are than in float32."""
        return self.dense_bytes / self.stored_bytes


def size_report(params: Params) -> SizeReport:
    """Measures parameters, a whole model's or those of a group.

    >>> report = size_report({"up": {"kernel": jnp.array([[0.0, 2.0]]), "bias": jnp.ones(2)}})
    >>> report.weights, report.zeros, report.stored_bytes, report.ratio
    (4, 1, 16, 1.0)

    Args:
      params: nested dict of arrays and quantised kernels.
    """
    is_quantized = lambda node: isinstance(node, Quantized)
    leaves: list[Any] = jax.tree.leaves(params, is_leaf=is_quantized)
    weights = sum(math.prod(leaf.shape) for leaf in leaves)
    zeros = sum(int(jnp.sum(dequantize(leaf) == 0)) for leaf in leaves)
    return SizeReport(weights, zeros, sum(leaf.nbytes for leaf in leaves), 4 * weights)
