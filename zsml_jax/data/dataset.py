"""A labelled data set in memory: the record that every reader returns and every experiment takes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Inputs with labels, and what the labels mean.

    Attributes:
      name: what :func:`zsml_jax.data.load` was asked for.
      split: the split, as it was asked for.
      inputs: n texts, or an array whose first axis is n.
      labels: class indices, ``(n,)``.
      class_names: the k class ids, in the order of the indices.
      class_descriptions: a phrase for each class that fits into a prompt, where someone has written one.
      groups: group indices, ``(n,)``, for worst-group metrics; None where the set has no groups.
      group_names: the names of the groups.
      ids: a name for each example that stays the same over splits, where the set has one.
    """

    name: str
    split: str
    inputs: list[str] | np.ndarray
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    class_descriptions: tuple[str, ...] | None = None
    groups: Int[np.ndarray, " n"] | None = None
    group_names: tuple[str, ...] = ()
    ids: tuple[str, ...] | None = None

    def __post_init__(self):
        n, k = len(self.labels), len(self.class_names)
        for field in ("inputs", "groups", "ids"):
            value = getattr(self, field)
            if value is not None and len(value) != n:
                raise ValueError(f"{field} must have one entry per label: got {len(value)} and {n} labels")
        _require_indices("labels", self.labels, k, "class_names")
        if self.groups is not None:
            _require_indices("groups", self.groups, len(self.group_names), "group_names")
        if len(set(self.class_names)) != k:
            raise ValueError("class_names must differ from one another")
        if self.class_descriptions is not None and len(self.class_descriptions) != k:
            raise ValueError(f"class_descriptions must have {k} entries, got {len(self.class_descriptions)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        inputs = self.inputs
        what = f"arrays {inputs.shape[1:]} {inputs.dtype}" if isinstance(inputs, np.ndarray) else "texts"
        shown = ", ".join(self.class_names[:8]) + (", ..." if len(self.class_names) > 8 else "")
        groups = f"; {len(self.group_names)} groups: {', '.join(self.group_names)}" if self.group_names else ""
        classes = f"{len(self.class_names)} classes: {shown}"
        return f"Dataset({self.name!r}, {self.split!r}: {len(self)} {what}; {classes}{groups})"

    @property
    def label_distribution(self) -> Float[np.ndarray, " k"]:
        """The share of each class among the labels; it sums to 1."""
        if not len(self):
            raise ValueError(f"{self!r} is empty and has no label distribution")
        return np.bincount(self.labels, minlength=len(self.class_names)) / len(self)

    def subset(self, indices: Int[AnyArray, " m"] | Sequence[int]) -> "Dataset":
        """Returns the examples at ``indices``, in that order, with classes and groups unchanged.

        Args:
          indices: positions from 0 to n - 1; repeats are allowed.

        Raises:
          ValueError: if an index is not one of the n positions.
        """
        chosen = np.asarray(indices)
        chosen = chosen.astype(np.intp) if chosen.size == 0 else chosen
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise ValueError(f"indices must be a one-axis integer array, got shape {chosen.shape} of {chosen.dtype}")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ValueError(f"indices must lie in 0..{len(self) - 1}, got {chosen.min()}..{chosen.max()}")
        inputs = self.inputs[chosen] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in chosen]
        return dataclasses.replace(
            self,
            inputs=inputs,
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
            ids=None if self.ids is None else tuple(self.ids[i] for i in chosen),
        )


def _require_indices(field: str, values: np.ndarray, count: int, names: str) -> None:
    if values.dtype.kind not in "iu" or values.ndim != 1:
        raise ValueError(f"{field} must be a one-axis integer array, got shape {values.shape} of {values.dtype}")
    if len(values) and (values.min() < 0 or values.max() >= count):
        raise ValueError(f"{field} must index the {count} {names}, got {values.min()}..{values.max()}")
