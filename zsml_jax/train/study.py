"""What a study computed: a pytree with the trials stacked along their first axis, and tables of it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int

from zsml_jax.report.table import Column, Table
from zsml_jax.typing import AnyArray, PyTree

#: The path of a leaf of the output, such as ``"eval/loss"``, or a function of one trial's output.
Metric = str | Callable[[PyTree], Any]
Goal = Literal["min", "max"]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["trials", "hyperparameters", "output"], meta_fields=["static"]
)
@dataclasses.dataclass(frozen=True)
class Group:
    """The trials of one static configuration, stacked; a pytree.

    Attributes:
      static: names and values of the static fields.
      trials: the trials' numbers in the study, ascending, ``(n,)``.
      hyperparameters: the traced fields, each ``(n,)``.
      output: what training returned, each leaf with n rows.
    """

    static: tuple[tuple[str, Any], ...]
    trials: Any
    hyperparameters: dict[str, Any]
    output: PyTree

    def __len__(self) -> int:
        return len(self.trials)

    def take(self, rows: Int[AnyArray, " m"]) -> "Group":
        """Returns the group with these rows, in this order."""
        part = lambda leaf: leaf[rows]
        return jax.tree.map(part, self)


class Trial(NamedTuple):
    """One trial.

    Attributes:
      number: its number; its key is ``fold_in(study.key, number)``.
      point: which of the study's points.
      seed: which of the point's repeats.
      fields: static and traced hyperparameters by name.
      output: what training returned.
    """

    number: int
    point: int
    seed: int
    fields: dict[str, Any]
    output: PyTree


@functools.partial(jax.tree_util.register_dataclass, data_fields=["key", "groups"], meta_fields=["seeds"])
@dataclasses.dataclass(frozen=True)
class Study:
    """All trials, a pytree: it goes through ``jit``, ``device_put`` and a checkpoint as it is.

    Attributes:
      key: the study's random key.
      groups: one for each static configuration, in the order of their first trials.
      seeds: how many trials each point has; trial t belongs to point ``t // seeds``.
    """

    key: Any
    groups: tuple[Group, ...]
    seeds: int

    def __len__(self) -> int:
        return sum(map(len, self.groups))

    @property
    def trials(self) -> Int[np.ndarray, " n"]:
        """The numbers of the trials, ascending; all results below are in this order."""
        return np.sort(self._numbers())

    @property
    def finite(self) -> Bool[np.ndarray, " n"]:
        """Whether all floating-point numbers of a trial's output are finite; the others have diverged."""
        return self._in_order([_finite(group) for group in self.groups])

    def metric(self, metric: Metric) -> Float[np.ndarray, " n"]:
        """Returns one number for each trial.

        Args:
          metric: a leaf of the output by its path, or a function of a trial's output (it is vmapped).

        Raises:
          ValueError: if there is no such leaf, or it is not one number a trial.
        """
        columns = []
        for group in self.groups:
            values = jax.vmap(metric)(group.output) if callable(metric) else _leaf(group.output, metric)
            if np.shape(values) != (len(group),):
                raise ValueError(f"metric {metric!r} must be one number a trial, got the shape {np.shape(values)[1:]}")
            columns.append(_fetch(values).astype(np.float64))
        return self._in_order(columns)

    def ranking(self, metric: Metric, goal: Goal = "min") -> Int[np.ndarray, " n"]:
        """Returns the trials' numbers from the best to the worst; ties go to the lower number, NaN comes last.

        Raises:
          ValueError: as :meth:`metric`, or if ``goal`` is neither ``"min"`` nor ``"max"``.
        """
        if goal not in ("min", "max"):
            raise ValueError(f"goal must be 'min' or 'max', got {goal!r}")
        values = self.metric(metric)
        return self.trials[np.argsort(values if goal == "min" else -values, kind="stable")]

    def best(self, metric: Metric, goal: Goal = "min") -> Trial:
        """Returns the trial with the best metric.

        Raises:
          ValueError: as :meth:`ranking`, or if the metric of every trial is NaN.
        """
        if np.isnan(self.metric(metric)).all():
            raise ValueError(f"metric {metric!r} is NaN in every trial; there is no best one")
        return self.trial(int(self.ranking(metric, goal)[0]))

    def trial(self, number: int) -> Trial:
        """Returns a trial by its number.

        Raises:
          ValueError: if the study does not hold it.
        """
        for group in self.groups:
            (rows,) = np.nonzero(_fetch(group.trials) == number)
            if len(rows):
                row = group.take(rows)
                traced = {name: _fetch(value)[0].item() for name, value in row.hyperparameters.items()}
                output = jax.tree.map(lambda leaf: leaf[0], row.output)
                point, seed = divmod(number, self.seeds)
                return Trial(number, point, seed, {**dict(group.static), **traced}, output)
        raise ValueError(f"number must be a trial of this study ({len(self)} trials), got {number}")

    def take(self, trials: Sequence[int] | Int[AnyArray, " m"]) -> "Study":
        """Returns the study with these trials only; groups that lose all of theirs disappear.

        Raises:
          ValueError: if there are none, or one is not in the study.
        """
        wanted = np.unique(np.asarray(trials))
        if not len(wanted) or not np.isin(wanted, self._numbers()).all():
            raise ValueError(f"trials must be numbers of this study's {len(self)} trials, got {wanted.tolist()}")
        rows = [np.flatnonzero(np.isin(_fetch(group.trials), wanted)) for group in self.groups]
        groups = tuple(group.take(r) for group, r in zip(self.groups, rows, strict=True) if len(r))
        return dataclasses.replace(self, groups=groups)

    def rows(self, *metrics: str) -> list[dict[str, Any]]:
        """Returns a record for each trial: its number, seed, fields, metrics and whether it is finite."""
        columns = {name: self.metric(name) for name in metrics}
        fields: dict[int, dict[str, Any]] = {}
        for group in self.groups:
            traced = {name: _fetch(value).tolist() for name, value in group.hyperparameters.items()}
            for i, number in enumerate(_fetch(group.trials).tolist()):
                fields[number] = {**dict(group.static), **{name: value[i] for name, value in traced.items()}}
        return [
            {
                "trial": number,
                "seed": number % self.seeds,
                **fields[number],
                **{name: column[i].item() for name, column in columns.items()},
                "finite": bool(finite),
            }
            for i, (number, finite) in enumerate(zip(self.trials.tolist(), self.finite, strict=True))
        ]

    def table(self, *metrics: str, title: str = "") -> Table:
        """Returns the trials as a table for a report, hyperparameters with their digits as ``%g`` gives them."""
        records = self.rows(*metrics)
        table = Table([Column(name, digits=4) for name in records[0]], title=title)
        for record in records:
            cells = {name: v if name in ("trial", "seed", *metrics) else _text(v) for name, v in record.items()}
            table.add(*cells.values())
        return table

    def _numbers(self) -> np.ndarray:
        return np.concatenate([_fetch(group.trials) for group in self.groups])

    def _in_order(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(columns)[np.argsort(self._numbers())]


def _finite(group: Group) -> np.ndarray:
    leaves = [leaf for leaf in jax.tree.leaves(group.output) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    rows = [_fetch(jnp.isfinite(leaf)).reshape(len(group), -1).all(axis=1) for leaf in leaves]
    return np.all(rows, axis=0) if rows else np.ones(len(group), bool)


def _leaf(output: PyTree, path: str) -> Any:
    leaves = {_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(output)}
    if path not in leaves:
        raise ValueError(f"metric must be one of {sorted(leaves)}, got {path!r}")
    return leaves[path]


def _name(keys: tuple) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _fetch(array: Any) -> np.ndarray:
    if getattr(array, "is_fully_addressable", True):
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _text(value: Any) -> Any:
    if isinstance(value, bool | str):
        return value
    return f"{value:g}" if isinstance(value, int | float) else str(value)
