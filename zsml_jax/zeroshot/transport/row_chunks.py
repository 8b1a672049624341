"""Rows of scores that are read in chunks, as often as a solver asks for them."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.evaluate import score_checks
from zsml_jax.typing import AnyArray, Array

#: Chunks of scores, each ``(rows, k)``: a sequence, or a function that starts a fresh iteration over them.
ChunkSource: TypeAlias = Sequence[AnyArray] | Callable[[], Iterable[AnyArray]]

#: Larger chunks are read in pieces of about this many matrix entries: small enough for their buffers to be used again,
#: where an allocator maps fresh pages for each large one.
_ENTRIES = 2**20

_CHANGED = (
    "the chunks changed between two passes; pass a sequence, or a function that starts a new iteration over the same "
    "rows, not a generator that is used up"
)


class RowChunks:
    """Class scores in chunks, with the mass of each row; iterates over ``(rows, weights)`` pairs.

    Attributes:
      n: the number of rows in all chunks.
      k: the number of classes.
      weights: the mass of each row, float64, summing to one, ``(n,)``.
      equal_weights: whether all rows have the same mass.
    """

    def __init__(self, source: ChunkSource, sample_weights: AnyArray | None = None):
        """Reads the chunks once, to count and check them.

        Args:
          source: the chunks; it must give the same rows in the same order each time it is read.
          sample_weights: the weight of each row, ``(n,)``; equal by default.

        Raises:
          ValueError: if a chunk is not a sound array of scores, the chunks differ in their number of classes, or the
            weights do not fit.
        """
        self._source = source
        sizes, classes = [], set()
        for number, rows in enumerate(self._chunks()):
            score_checks.check_log_probs(rows, f"log_probs of chunk {number}")
            sizes.append(rows.shape[0])
            classes.add(rows.shape[1])
        if len(classes) != 1:
            found = sorted(classes) or "no chunk"
            raise ValueError(f"all chunks must have the same number of classes, got {found}")
        self.n, self.k = sum(sizes), classes.pop()
        self._ends = np.cumsum(sizes)
        self.equal_weights = sample_weights is None
        if sample_weights is None:
            self.weights = np.full(self.n, 1.0 / self.n)
        else:
            score_checks.check_sample_weights(sample_weights, self.n)
            weights = np.asarray(sample_weights, np.float64)
            self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[Array, np.ndarray]]:
        for rows, begin, end in self._spans():
            yield jnp.asarray(rows), self.weights[begin:end]

    @classmethod
    def of_array(cls, log_probs: AnyArray, sample_weights: AnyArray | None = None) -> "RowChunks":
        """Returns chunks that are views of one array of scores, ``(n, k)``."""
        return cls([log_probs], sample_weights)

    def coarse(self) -> "CoarseRows":
        """Returns the rows in float32 on the device, less their maximum, which no plan depends on."""
        coarse, begin = jnp.zeros((self.n, self.k), jnp.float32), 0
        for rows, weights in self:
            coarse = _with_centred(coarse, rows, begin).block_until_ready()
            begin += len(weights)
        return CoarseRows(coarse, self.weights)

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows of the given sorted indices, in float64, ``(len(indices), k)``."""
        parts = []
        for rows, begin, end in self._spans():
            low, high = np.searchsorted(indices, [begin, end])
            parts.append(np.asarray(rows[indices[low:high] - begin], np.float64))
        return np.concatenate(parts)

    def _spans(self) -> Iterator[tuple[AnyArray, int, int]]:
        """Iterates over pieces of the chunks with their first and last row number; refuses a pass unlike the first."""
        begin = number = 0
        for number, rows in enumerate(self._chunks(), start=1):
            end = begin + rows.shape[0]
            if number > len(self._ends) or end != self._ends[number - 1]:
                raise ValueError(_CHANGED)
            size = _piece_size(end - begin, max(1, _ENTRIES // self.k))
            for first in range(begin, end, size):
                last = min(first + size, end)
                yield rows[first - begin : last - begin], first, last
            begin = end
        if number != len(self._ends):
            raise ValueError(_CHANGED)

    def _chunks(self) -> Iterable[AnyArray]:
        return self._source() if callable(self._source) else self._source


class CoarseRows:
    """Rows in float32 that stay on the device as one chunk; iterates as :class:`RowChunks` does.

    Attributes:
      n: the number of rows.
      k: the number of classes.
    """

    def __init__(self, rows: Array, weights: np.ndarray):
        """Keeps the rows and their masses."""
        self.n, self.k = rows.shape
        self._chunk = rows, weights

    def __iter__(self) -> Iterator[tuple[Array, np.ndarray]]:
        yield self._chunk


@functools.partial(jax.jit, donate_argnums=0)
def _with_centred(coarse: Array, rows: Array, begin: Array | int) -> Array:
    centred = (rows - jnp.max(rows, axis=1, keepdims=True)).astype(coarse.dtype)
    return jax.lax.dynamic_update_slice_in_dim(coarse, centred, begin, axis=0)


def _piece_size(n: int, target: int) -> int:
    """Returns a size of at most ``target`` that divides n, so that one program serves all pieces, if one is near."""
    if n <= target:
        return n
    return next((size for size in range(target, target // 2, -1) if n % size == 0), target)
