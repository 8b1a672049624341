"""Deterministic splits for data sets that ship none, and the split strings that name a part of them.

A hash decides which split an example goes to, so that a split depends neither on the order of the source file nor on a
random generator's version. Examples that belong together (equal texts, sentences of one document) share a split, and
every stratum is divided alike.
"""

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

#: Shares of the examples of each stratum, in the order of their hashes.
FRACTIONS: Mapping[str, Fraction] = {
    "train": Fraction(6, 10),
    "validation": Fraction(2, 10),
    "test": Fraction(2, 10),
}


def assign(
    keys: Sequence[str], strata: Sequence[Hashable], units: Sequence[Int[np.ndarray, " n"]], *, seed: int = 0
) -> dict[str, Int[np.ndarray, " m"]]:
    """Divides n examples into train, validation and test, and ``all``.

    Args:
      keys: the content of each example, which is hashed.
      strata: what each split should hold its share of, such as the labels.
      units: ways in which examples belong together: two with the same number in any of them share a split.
      seed: another seed, another division.

    Returns:
      Split names to indices. Each split is shuffled by a second hash, so that a slice of it is a fair sample.
    """
    order = _order(keys, f"{seed} divide")
    members: dict[int, list[int]] = {}
    together = _connected(units, len(keys))
    for i in order:
        members.setdefault(int(together[i]), []).append(int(i))
    by_stratum: dict[Hashable, list[list[int]]] = {}
    for unit in members.values():  # in the order of each unit's first hash, which also names its stratum
        by_stratum.setdefault(strata[unit[0]], []).append(unit)
    split_of = np.empty(len(keys), dtype=object)
    for stratum in by_stratum.values():
        size, done = sum(map(len, stratum)), 0
        for unit in stratum:
            split_of[unit] = _split_at(Fraction(done, size))
            done += len(unit)
    shuffled = _order(keys, f"{seed} shuffle")
    return {"all": shuffled} | {split: shuffled[split_of[shuffled] == split] for split in FRACTIONS}


def select(expression: str, splits: Mapping[str, np.ndarray], name: str) -> Int[np.ndarray, " m"]:
    """Returns the indices that a split string names.

    Args:
      expression: as TFDS writes them: ``train``, ``test[:100]``, ``all[20%:80%]``, ``train+validation``.
      splits: split names to indices.
      name: the data set's name, for the message.

    Raises:
      ValueError: if the string cannot be read, or names a split that the set does not have.
    """
    return np.concatenate([_part(part.strip(), splits, name) for part in expression.split("+")])


def _order(keys: Sequence[str], salt: str) -> np.ndarray:
    return np.argsort([hashlib.sha256(f"{salt}:{key}".encode()).hexdigest() for key in keys], kind="stable")


def _part(part: str, splits: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    parsed = re.fullmatch(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", part)
    if parsed is None:
        raise ValueError(f"split must look like 'test', 'test[:100]' or 'train[:80%]+test', got {part!r}")
    split, start, stop = parsed.groups()
    if split not in splits:
        raise ValueError(f"{name} has no split {split!r}; it has {', '.join(splits)}")
    indices = splits[split]
    return indices[_position(start, len(indices)) : _position(stop, len(indices))]


def _position(text: str | None, size: int) -> int | None:
    if text is None:
        return None
    return round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text)


def _split_at(position: Fraction) -> str:
    end = Fraction(0)
    for split, share in FRACTIONS.items():
        end += share
        if position < end:
            return split
    raise AssertionError(f"position {position} must be below 1")


def _connected(units: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Numbers the connected components of the examples, where a shared unit connects."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns, offset = [np.arange(0)], [np.arange(0)], n
    for unit in units:
        numbers = np.unique(unit, return_inverse=True)[1]
        rows.append(np.arange(n))
        columns.append(numbers + offset)
        offset += n
    edges = np.concatenate(rows), np.concatenate(columns)
    return connected_components(coo_array((np.ones(len(edges[0])), edges), shape=(offset, offset)), directed=False)[1][
        :n
    ]
