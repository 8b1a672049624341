"""Stop strings: where the decoded text of a row first holds one, and with which token that happened."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from zsml_jax.models.tokenizer import Tokenizer


class Ended(NamedTuple):
    """Which rows hold a stop string.

    Attributes:
      is_done: ``(b,)``.
      lengths: tokens of each row up to the one that completes the string, ``(b,)``; as they were in other rows.
    """

    is_done: Bool[np.ndarray, " b"]
    lengths: Int32[np.ndarray, " b"]


class StopStrings:
    """Looks for stop strings in rows that grow."""

    def __init__(self, tokenizer: Tokenizer | None, strings: Sequence[str], batch: int):
        """Checks the strings.

        Args:
          tokenizer: decodes tokens; needed if there are strings.
          strings: the stop strings.
          batch: the number of rows.

        Raises:
          ValueError: if the strings are one string or an empty one, or there is no tokenizer for them.
        """
        if isinstance(strings, str) or any(not isinstance(each, str) or not each for each in strings):
            raise ValueError(f"stop_strings must be a sequence of non-empty strings, got {strings!r}")
        if strings and tokenizer is None:
            raise ValueError("stop_strings need a model with a tokenizer")
        self._tokenizer = tokenizer
        self._strings = tuple(strings)
        self._lengths: list[int | None] = [None] * batch

    def ended(self, tokens: Int32[np.ndarray, "b t"], lengths: Int32[np.ndarray, " b"]) -> Ended:
        """Returns which rows hold a stop string by now.

        Args:
          tokens: the new tokens of each row.
          lengths: how many of them count.
        """
        lengths = np.array(lengths)
        for row, (ids, length) in enumerate(zip(tokens, lengths, strict=True)):
            if self._lengths[row] is None and self._holds(ids[:length]):
                self._lengths[row] = self._first(ids[:length])
            if (end := self._lengths[row]) is not None:
                lengths[row] = end
        return Ended(np.array([end is not None for end in self._lengths]), lengths)

    def _holds(self, ids: np.ndarray) -> bool:
        if self._tokenizer is None:
            return False
        text = self._tokenizer.decode(ids)
        return any(string in text for string in self._strings)

    def _first(self, ids: np.ndarray) -> int:
        """The least number of tokens whose text holds a string, by bisection."""
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._holds(ids[:middle]) else (middle + 1, high)
        return low
