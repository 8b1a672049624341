"""Confidence by isotonic regression of correctness on the softmax (Zadrozny and Elkan, 2002)."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.autolabel.confidence.confidence import usable
from zsml_jax.autolabel.confidence.unfitted import Softmax
from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.typing import Array, Key


class Steps(NamedTuple):
    """A fitted monotone function, a pytree: values at rising scores, straight lines between them.

    Attributes:
      scores: ``(n,)``, rising.
      values: ``(n,)``, not falling.
    """

    scores: Float[Array, " n"]
    values: Float[Array, " n"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Isotonic:
    """The non-falling function of the softmax that is nearest to correctness in squares, for all classes together."""

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> Steps:
        """Fits by pooling adjacent violators."""
        del key
        scores, weights = Softmax().score((), outputs), usable(weights)
        correct = (outputs.predicted == labels).astype(scores.dtype)
        # Rows without weight go to the end and repeat the last one, where they change nothing.
        order = jnp.argsort(jnp.where(weights > 0, scores, jnp.inf))
        last = jnp.maximum((weights > 0).sum() - 1, 0)
        order = order[jnp.minimum(jnp.arange(len(order)), last)]
        weights = jnp.where(jnp.arange(len(order)) <= last, weights[order], 0.0)
        scores, correct = scores[order], correct[order]
        # Equal scores are one point of their mean.
        tie = jnp.cumsum(jnp.concatenate([jnp.zeros(1, int), (scores[1:] != scores[:-1]).astype(int)]))
        mass = jax.ops.segment_sum(weights, tie, len(tie))
        mean = jax.ops.segment_sum(weights * correct, tie, len(tie)) / jnp.where(mass > 0, mass, 1)
        return Steps(scores, non_falling(mean, mass)[tie])

    def score(self, fitted: Steps, outputs: Outputs) -> Float[Array, " n"]:
        """Returns the fitted share of right points, in [0, 1]."""
        return jnp.interp(Softmax().score((), outputs), fitted.scores, fitted.values)


def non_falling(values: Float[Array, " n"], weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Returns the non-falling sequence nearest to ``values`` in weighted squares.

    >>> non_falling(jnp.array([1.0, 3.0, 2.0]), jnp.ones(3)).tolist()
    [1.0, 2.5, 2.5]

    Args:
      values: the sequence.
      weights: not negative; where one is zero, the sequence takes the value of the block before it.
    """
    n = len(values)

    def add(i: Array, stack: tuple) -> tuple:
        size, sums, masses, starts = stack
        put = lambda x, value: x.at[size].set(value)
        stack = (size + 1, put(sums, values[i] * weights[i]), put(masses, weights[i]), put(starts, i))

        def falls(stack: tuple) -> Array:
            size, sums, masses, _ = stack
            # Means are compared by cross products, so that a block without mass joins the one before it.
            a, b = jnp.maximum(size - 2, 0), jnp.maximum(size - 1, 0)
            return (size > 1) & (sums[a] * masses[b] >= sums[b] * masses[a])

        def merge(stack: tuple) -> tuple:
            size, sums, masses, starts = stack
            into = size - 2
            return size - 1, sums.at[into].add(sums[size - 1]), masses.at[into].add(masses[size - 1]), starts

        return jax.lax.while_loop(falls, merge, stack)

    empty = (jnp.int32(0), jnp.zeros(n, values.dtype), jnp.zeros(n, values.dtype), jnp.full(n, n, jnp.int32))
    size, sums, masses, starts = jax.lax.fori_loop(0, n, add, empty)
    starts = jnp.where(jnp.arange(n) < size, starts, n)
    block = jnp.searchsorted(starts, jnp.arange(n), side="right") - 1
    return sums[block] / jnp.where(masses[block] > 0, masses[block], 1)
