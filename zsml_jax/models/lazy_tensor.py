"""Tensors of files: one that is read when it is needed, and one on its way into a file."""

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


class Outgoing(NamedTuple):
    """A tensor on its way into a file.

    Attributes:
      nbytes: its size.
      read: fetches it from the parameters, in the file's layout.
    """

    nbytes: int
    read: Callable[[], np.ndarray]
