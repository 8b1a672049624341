"""The smallest of many scores: exactly as many as are wanted, and of equal ones those that come first.

Nothing is sorted and nothing concatenated. The bits of a number that is not negative are ordered as the numbers are, so
that the threshold is found by bisection, bit by bit: each step counts how many scores lie below a candidate, in one
pass over all arrays where they lie. A second bisection, over positions, decides among those equal to the threshold.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer, UInt32

from zsml_jax.typing import AnyArray, Array

#: Above this many scores counts no longer fit.
LARGEST = 2**32 - 1


def order_bits(scores: Float[AnyArray, "..."]) -> UInt32[Array, "..."]:
    """Returns integers in the order of the magnitudes of the scores; those of 0 and -0 are 0."""
    return jax.lax.bitcast_convert_type(jnp.abs(jnp.asarray(scores, jnp.float32)), jnp.uint32)


def smallest(
    scores: Sequence[UInt32[AnyArray, "..."]],
    count: int | Integer[AnyArray, ""],
    *,
    axes: int | tuple[int, ...] | None = None,
) -> list[Bool[Array, "..."]]:
    """Returns which scores are the smallest.

    >>> [mask.tolist() for mask in smallest([jnp.uint32([3, 1]), jnp.uint32([1, 1, 0])], 3)]
    [[False, True], [True, False, True]]

    Args:
      scores: arrays.
      count: how many are wanted; may be traced.
      axes: axes of each array over which to compare; together in all arrays if None.

    Returns:
      Arrays of the same shapes, True at ``count`` places: of all, or of each slice along ``axes``. Of equal scores the
      first are taken, in the order of the arrays and of their entries.

    Raises:
      ValueError: if there are too many scores to count.
    """
    if axes is not None:
        return [one for array in scores for one in _smallest([jnp.asarray(array)], count, axes)]
    if sum(array.size for array in scores) > LARGEST:
        raise ValueError(f"scores must be at most {LARGEST} to be compared together; compare them layer by layer")
    return _smallest([jnp.asarray(array) for array in scores], count, None)


def _smallest(scores: list[Array], count: int | AnyArray, axes: int | tuple[int, ...] | None) -> list[Array]:
    def total(flags: list[Array]) -> Array:
        counts = [flag.sum(axes, dtype=jnp.uint32, keepdims=axes is not None) for flag in flags]
        return sum(counts[1:], counts[0])

    def bound(flags_below: Callable[[Array], list[Array]], limit: Array) -> Array:
        """The largest number below which there are at most ``limit`` flags."""

        def step(i: Array, best: Array) -> Array:
            candidate = best | (jnp.uint32(1) << jnp.asarray(31 - i, jnp.uint32))
            return jnp.where(total(flags_below(candidate)) <= limit, candidate, best)

        return jax.lax.fori_loop(0, 32, step, jnp.zeros_like(limit))

    shape = total([score < 0 for score in scores]).shape
    limit = jnp.broadcast_to(jnp.asarray(count, jnp.uint32), shape)
    threshold = bound(lambda t: [score < t for score in scores], limit)
    left = limit - total([score < threshold for score in scores])
    equal = [score == threshold for score in scores]
    places = _places(scores)

    def first(limit: Array) -> Array:
        return bound(lambda p: [e & (place < p) for e, place in zip(equal, places, strict=True)], limit)

    # Mostly nothing else equals the threshold, and nothing of it is wanted.
    last = jax.lax.cond(left.any(), first, jnp.zeros_like, left)
    return [(score < threshold) | (e & (place < last)) for score, e, place in zip(scores, equal, places, strict=True)]


def _places(scores: list[Array]) -> list[Array]:
    places, start = [], 0
    for score in scores:
        places.append(jnp.arange(start, start + score.size, dtype=jnp.uint32).reshape(score.shape))
        start += score.size
    return places


def smallest_of_each(scores: Float[AnyArray, "*l i o"], dropped: int, of: int) -> Bool[Array, "*l i o"]:
    """Returns which scores are the ``dropped`` smallest of each ``of`` consecutive inputs; of equal ones the first."""
    grouped = jnp.asarray(scores).reshape(*scores.shape[:-2], -1, of, scores.shape[-1])
    rank = jnp.zeros(grouped.shape, jnp.int32)
    for j in range(of):
        other = grouped[..., j : j + 1, :]
        before = jnp.arange(of)[:, None] > j
        rank += (other < grouped) | (before & (other == grouped))
    return (rank < dropped).reshape(scores.shape)
