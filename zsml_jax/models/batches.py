"""Batches of ragged sequences in a handful of shapes, so that a corpus compiles a handful of programs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """One batch of a plan.

    Attributes:
      rows: indices of its sequences, at most ``size``; the remaining rows are padding.
      size: rows of the batch.
      length: columns of the batch.
    """

    rows: np.ndarray
    size: int
    length: int


def round_length(length: int) -> int:
    """Returns the next of 16, 24, 32, 48, 64, 96, ... (two a doubling).

    From 16 tokens on at most a third is padding, and few programs are compiled.

    >>> [round_length(length) for length in (1, 17, 25, 33, 512, 513)]
    [16, 24, 32, 48, 512, 768]
    """
    size = 16
    while size < length:
        if size * 3 // 2 >= length:
            return size * 3 // 2
        size *= 2
    return size


def plan_batches(lengths: Sequence[int], *, max_length: int, batch_size: int, multiple_of: int = 1) -> list[Batch]:
    """Sorts sequences by length and cuts them into batches of about the same number of tokens.

    Lengths are rounded up by :func:`round_length`, so that 512 tokens need 11 lengths. Batches are filled from the
    longest sequence down; only the last one can be partly filled, and has the smallest power of two that holds it.

    Args:
      lengths: length of each sequence, in tokens.
      max_length: the longest length of a batch.
      batch_size: rows of a batch of ``max_length`` columns; shorter batches have more, in proportion.
      multiple_of: rows are a multiple of this, the number of devices that share a batch.

    Returns:
      The batches, longest first; every sequence is in exactly one.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        length = min(round_length(int(lengths[order[start]])), max_length)
        full = _power_of_two(batch_size * max_length // length + 1) // 2
        rows = order[start : start + full]
        size = max(_power_of_two(len(rows)), min(8, full))
        batches.append(Batch(rows, -(-size // multiple_of) * multiple_of, length))
        start += full
    return batches


def pad_rows(sequences: Sequence[np.ndarray], batch: Batch, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ids and the mask of a batch, int32 arrays ``(size, length)``.

    Args:
      sequences: token ids of all sequences, of which the batch names its rows.
      batch: from :func:`plan_batches`.
      pad_id: what fills rows on the right, and rows that hold no sequence.
    """
    ids = np.full((batch.size, batch.length), pad_id, np.int32)
    mask = np.zeros((batch.size, batch.length), np.int32)
    for i, row in enumerate(batch.rows):
        ids[i, : len(sequences[row])] = sequences[row]
        mask[i, : len(sequences[row])] = 1
    return ids, mask


def _power_of_two(number: int) -> int:
    """The smallest power of two that is not less than ``number``."""
    return 1 << (number - 1).bit_length()
