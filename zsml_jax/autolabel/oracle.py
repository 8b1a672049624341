"""Who knows the labels: hands them out for the points that are asked for, and keeps count."""

import numpy as np
from jaxtyping import Int

from zsml_jax.typing import AnyArray


class Oracle:
    """Labels that cost something.

    >>> oracle = Oracle(np.array([1, 0, 1]))
    >>> oracle(np.array([2, 0])).tolist(), oracle.spent
    ([1, 1], 2)
    >>> oracle(np.array([2])).tolist(), oracle.spent     # what was bought is not paid for again
    ([1], 2)

    Args:
      labels: the class of every point, ``(n,)``, not negative.

    Raises:
      ValueError: if they are no classes.
    """

    def __init__(self, labels: Int[AnyArray, " n"]):
        labels = np.asarray(labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or (labels < 0).any():
            raise ValueError(
                f"labels must be a row of class indices that are not negative, got {labels.dtype} {labels.shape}"
            )
        self._labels = labels.astype(np.int32)
        self._asked = np.zeros(len(labels), bool)

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def spent(self) -> int:
        """How many different points were asked for."""
        return int(self._asked.sum())

    @property
    def asked(self) -> Int[np.ndarray, " m"]:
        """The points that were asked for, in rising order."""
        return np.flatnonzero(self._asked)

    def __call__(self, rows: Int[AnyArray, " m"]) -> Int[np.ndarray, " m"]:
        """Returns the labels of some points.

        Raises:
          ValueError: if a row is no index of a point.
        """
        rows = np.asarray(rows)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise ValueError(f"rows must lie between 0 and {len(self) - 1}, got {rows.min()} to {rows.max()}")
        self._asked[rows] = True
        return self._labels[rows]
