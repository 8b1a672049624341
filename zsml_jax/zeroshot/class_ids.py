"""Class ids: names that make it impossible to multiply the columns of one class order by the rows of another."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


class ClassIds:
    """An ordered set of ids, hashable in constant time, so that it can be a static field of a pytree."""

    def __init__(self, ids: Iterable[Hashable]):
        """Takes the ids in their order.

        Args:
          ids: distinct strings, integers or tuples.

        Raises:
          ValueError: if there is none, or one stands twice.
        """
        self.ids = tuple(_plain(i) for i in ids)
        self._index = {name: i for i, name in enumerate(self.ids)}
        if not self.ids:
            raise ValueError("classes must name at least one class")
        if len(self._index) != len(self.ids):
            seen: set[Hashable] = set()
            double = [i for i in self.ids if i in seen or seen.add(i)]
            raise ValueError(f"classes must be distinct, but {_some(double)} stand more than once")
        self._hash = hash(self.ids)

    def indices(self, ids: Sequence[Hashable] | np.ndarray, name: str) -> np.ndarray:
        """Returns the positions of ids, int32.

        Args:
          ids: the ids to look up.
          name: what the caller names them, for the message.

        Raises:
          ValueError: if one of them is unknown.
        """
        wanted = [_plain(i) for i in ids]
        if unknown := [i for i in wanted if i not in self._index]:
            raise ValueError(f"{name} must hold ids of the metric's classes; unknown: {_some(unknown)}")
        return np.array([self._index[i] for i in wanted], np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ClassIds) and self._hash == other._hash and self.ids == other.ids)


def _plain(name: Hashable) -> Hashable:
    return name.item() if isinstance(name, np.generic) else name


def _some(names: list[Hashable]) -> str:
    shown = ", ".join(repr(n) for n in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
