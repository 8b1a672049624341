"""A tensor that a file describes, and that is read when it is needed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class LazyTensor(NamedTuple):
    """A tensor of a file.

    Attributes:
      shape: its shape.
      dtype: its dtype in the file.
      read: reads it into an array that nobody else keeps, as parameters may use its memory.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
