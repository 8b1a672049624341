"""A person's own labelling functions, plain Python or Snorkel's, applied to rows of any kind."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from zsml_jax.report import progress
from zsml_jax.weaksup.vote_matrix import ABSTAIN

_LONG_WORK = 100_000  # rows, from which on progress is shown


def apply(functions: Sequence[Callable[[Any], Any]], rows: Iterable[Any]) -> Int[np.ndarray, "n m"]:
    """Returns the vote of each function on each row.

    A labelling function of Snorkel is called as it is, its resources and preprocessors included.

    >>> apply([lambda text: 1 if "good" in text else None, lambda text: 0 if "bad" in text else -1], ["good", "so bad"])
    array([[ 1, -1],
           [-1,  0]], dtype=int32)

    Args:
      functions: from a row to a class, or to -1 or None for abstain.
      rows: what the functions read, such as texts, dicts, or the named tuples of a frame's ``itertuples()``.

    Returns:
      The votes.

    Raises:
      ValueError: if there are no functions or no rows, or a function gives something else; it is named.
    """
    if not functions:
        raise ValueError("functions must hold at least one function, got none")
    rows = list(rows)
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    votes = np.empty((len(rows), len(functions)), np.int32)
    for i, row in enumerate(progress(rows, "labelling") if len(rows) >= _LONG_WORK else rows):
        for j, function in enumerate(functions):
            votes[i, j] = _class_of(function(row), function, i)
    return votes


def _class_of(vote: Any, function: Callable[[Any], Any], row: int) -> int:
    if vote is None:
        return ABSTAIN
    value = vote.item() if hasattr(vote, "item") else vote
    if isinstance(value, bool | int) and value >= ABSTAIN:
        return int(value)
    name = getattr(function, "name", None) or getattr(function, "__name__", repr(function))
    raise ValueError(f"functions must give a class, -1 or None; {name} gave {vote!r} on row {row}")
