"""What labelling functions do on data: coverage, overlap, conflict, and accuracy where labels are known.

The definitions are those of Snorkel's ``LFAnalysis``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.report import Column, Table
from zsml_jax.typing import AnyArray, Array
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_labels, checked_votes, summed_over_rows


class Analysis(NamedTuple):
    """One number for each function, and three for all of them together, a pytree.

    Attributes:
      polarity: whether a function ever votes for a class, ``(m, k)``.
      coverage: the share of examples that it votes on, ``(m,)``.
      overlap: the share that it and another function vote on.
      conflict: the share that it votes on and another function votes on otherwise.
      accuracy: the share of its votes that are right; NaN without labels, zero for a function that never votes.
      any_coverage: the share of examples with a vote.
      any_overlap: the share with two votes or more.
      any_conflict: the share with two different votes.
    """

    polarity: Bool[Array, "*batch m k"]
    coverage: Float[Array, "*batch m"]
    overlap: Float[Array, "*batch m"]
    conflict: Float[Array, "*batch m"]
    accuracy: Float[Array, "*batch m"]
    any_coverage: Float[Array, "*batch"]
    any_overlap: Float[Array, "*batch"]
    any_conflict: Float[Array, "*batch"]

    def table(self, names: Sequence[str] | None = None, *, title: str = "") -> Table:
        """Returns a row for each function, shares in percent.

        Args:
          names: of the functions; their numbers by default.
          title: above the table.

        Raises:
          ValueError: if there is not one name for each function.
        """
        m = len(self.coverage)
        names = [str(j) for j in range(m)] if names is None else names
        if len(names) != m:
            raise ValueError(f"names must name each of the {m} functions, got {len(names)} names")
        shares = [Column(name, percent=True) for name in ("coverage", "overlap", "conflict", "accuracy")]
        table = Table(["function", "votes for", *shares], title=title)
        for j, name in enumerate(names):
            classes = ", ".join(map(str, np.flatnonzero(self.polarity[j]))) or "nothing"
            values = [float(column[j]) for column in (self.coverage, self.overlap, self.conflict, self.accuracy)]
            table.add(name, classes, *(None if np.isnan(value) else value for value in values))
        return table


def analyze(votes: Int[AnyArray, "n m"], k: int, labels: Int[AnyArray, " n"] | None = None) -> Analysis:
    """Counts what the functions do.

    >>> votes = np.array([[0, 0, -1], [1, 0, -1], [1, -1, -1], [-1, -1, -1]])
    >>> found = analyze(votes, 2, np.array([0, 1, 1, 1]))
    >>> found.coverage.tolist(), found.conflict.tolist(), found.accuracy.tolist()
    ([0.75, 0.5, 0.0], [0.25, 0.25, 0.0], [1.0, 0.5, 0.0])

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``.
      k: the number of classes.
      labels: the class of each example, where it is known.

    Raises:
      ValueError: if votes or labels are not sound.
    """
    votes = checked_votes(votes, k)
    truth = None if labels is None else checked_labels(labels, votes.shape[0], k)
    return _analyze(votes, truth, jnp.arange(k, dtype=votes.dtype))


@jax.jit
def _analyze(votes: Array, labels: Array | None, classes: Array) -> Analysis:
    n = votes.shape[0]

    def counts(rows: tuple) -> tuple:
        votes, *labels = rows
        voted = votes != ABSTAIN
        number = voted.sum(axis=1)
        by_class = (votes[:, :, None] == classes).sum(axis=1)  # (rows, k)
        agreeing = jnp.take_along_axis(by_class, jnp.maximum(votes, 0).astype(jnp.int32), axis=1)
        overlapping = voted & (number > 1)[:, None]
        conflicting = voted & (agreeing < number[:, None])
        right = (votes == labels[0][:, None]).sum(axis=0) if labels else jnp.zeros(votes.shape[1], int)
        seen = (votes[:, :, None] == classes).sum(axis=0)
        together = jnp.stack([(number > 0).sum(), (number > 1).sum(), conflicting.any(axis=1).sum()])
        return voted.sum(axis=0), overlapping.sum(axis=0), conflicting.sum(axis=0), right, seen, together

    rows = (votes,) if labels is None else (votes, labels)
    voted, overlapping, conflicting, right, seen, together = summed_over_rows(counts, rows)
    accuracy = jnp.where(voted > 0, right / jnp.maximum(voted, 1), 0.0)
    return Analysis(
        polarity=seen > 0,
        coverage=voted / n,
        overlap=overlapping / n,
        conflict=conflicting / n,
        accuracy=accuracy if labels is not None else jnp.full_like(accuracy, jnp.nan),
        any_coverage=together[0] / n,
        any_overlap=together[1] / n,
        any_conflict=together[2] / n,
    )
