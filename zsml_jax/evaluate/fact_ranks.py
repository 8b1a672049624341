"""How highly a model ranks the right objects of facts: precision at k and reciprocal rank, over facts and relations."""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.bootstrap import Interval, bootstrap_interval
from zsml_jax.typing import AnyArray, Array, Key

#: "micro" is the mean over facts, "macro" the mean over relations of the mean over their facts.
RelationAverage = Literal["micro", "macro"]


class FactRanks(NamedTuple):
    """What a probe found.

    Attributes:
      ranks: the rank of the best right object of each fact, ``(n,)``, 1 for the first; 0 where it was not found.
      relations: the relation of each fact, ``(n,)``, as an index.
      relation_names: the names of the relations.
      asked: which facts these are, ``(n,)``, as indices into what was given; the others could not be asked.
      predictions: what the model ranks first for each.
    """

    ranks: Int[np.ndarray, " n"]
    relations: Int[np.ndarray, " n"]
    relation_names: tuple[str, ...]
    asked: Int[np.ndarray, " n"]
    predictions: tuple[str, ...]

    def precision_at(self, k: int, *, average: RelationAverage = "micro") -> float:
        """Returns the share of the facts whose object is among the first k."""
        return float(self._average(self._gains(k), average))

    def mean_reciprocal_rank(self, *, average: RelationAverage = "micro") -> float:
        """Returns the mean of one over the rank, 0 where the object was not found."""
        return float(self._average(self._gains(None), average))

    def interval(
        self, k: int | None = 1, *, key: Key, average: RelationAverage = "micro", level: float = 0.95
    ) -> Interval:
        """Returns the bootstrap interval over facts of the precision at k, or of the mean reciprocal rank if k is None.

        Relations are those that a resample has facts of.
        """
        if len(self.ranks) < 2:
            raise ValueError(f"ranks must be of at least two facts for an interval, got {len(self.ranks)}")
        statistic = _average_of(len(self.relation_names), average)
        return bootstrap_interval(statistic, self._gains(k), self.relations, key=key, level=level)

    def by_relation(self, k: int = 1) -> dict[str, float]:
        """Returns the precision at k of each relation."""
        gains = self._gains(k)
        return {name: float(gains[self.relations == i].mean()) for i, name in enumerate(self.relation_names)}

    def _gains(self, k: int | None) -> np.ndarray:
        if k is None:
            return np.where(self.ranks > 0, 1 / np.maximum(self.ranks, 1), 0.0).astype(np.float32)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        return ((self.ranks > 0) & (self.ranks <= k)).astype(np.float32)

    def _average(self, gains: np.ndarray, average: RelationAverage) -> Array:
        return average_gain(gains, self.relations, len(self.relation_names), average)


def average_gain(
    gains: Float[AnyArray, " n"], relations: Int[AnyArray, " n"], count: int, average: RelationAverage
) -> Float[Array, ""]:
    """Returns the mean over facts, or over the relations that have any.

    >>> float(average_gain(jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.array([0, 0, 0, 1]), 2, "macro")) > 0.6
    True

    Args:
      gains: what counts for each fact.
      relations: the relation of each fact.
      count: how many relations there are.
      average: "micro" or "macro".

    Raises:
      ValueError: if there is no such average.
    """
    if average not in ("micro", "macro"):
        raise ValueError(f"average must be 'micro' or 'macro', got {average!r}")
    gains, relations = jnp.asarray(gains), jnp.asarray(relations)
    if average == "micro":
        return gains.mean()
    facts = jax.ops.segment_sum(jnp.ones_like(gains), relations, count)
    means = jax.ops.segment_sum(gains, relations, count) / jnp.maximum(facts, 1)
    return means.sum() / (facts > 0).sum()


@functools.cache
def _average_of(count: int, average: RelationAverage) -> Callable[[Array, Array], Array]:
    """The average as a function of data alone; always the same object, so that resamples of it compile once."""
    return lambda gains, relations: average_gain(gains, relations, count, average)
