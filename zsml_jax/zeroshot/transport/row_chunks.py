"""Rows of scores that are read in chunks, as often as a solver asks for them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot import validation

#: Chunks of scores, each ``(rows, k)``: a sequence, or a function that starts a fresh iteration over them.
ChunkSource: TypeAlias = Sequence[AnyArray] | Callable[[], Iterable[AnyArray]]

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
            validation.check_log_probs(rows, f"log_probs of chunk {number}")
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
            validation.check_sample_weights(sample_weights, self.n)
            weights = np.asarray(sample_weights, np.float64)
            self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[tuple[Array, np.ndarray]]:
        for rows, begin, end in self._spans():
            yield jnp.asarray(rows), self.weights[begin:end]

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Returns the rows of the given sorted indices, in float64, ``(len(indices), k)``."""
        parts = []
        for rows, begin, end in self._spans():
            low, high = np.searchsorted(indices, [begin, end])
            parts.append(np.asarray(rows[indices[low:high] - begin], np.float64))
        return np.concatenate(parts)

    def _spans(self) -> Iterator[tuple[AnyArray, int, int]]:
        """Iterates over the chunks with their first and last row number; refuses a pass that differs from the first."""
        begin = number = 0
        for number, rows in enumerate(self._chunks(), start=1):
            end = begin + rows.shape[0]
            if number > len(self._ends) or end != self._ends[number - 1]:
                raise ValueError(_CHANGED)
            yield rows, begin, end
            begin = end
        if number != len(self._ends):
            raise ValueError(_CHANGED)

    def _chunks(self) -> Iterable[AnyArray]:
        return self._source() if callable(self._source) else self._source
