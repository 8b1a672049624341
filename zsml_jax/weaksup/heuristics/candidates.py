"""All heuristics of several families over combinations of features, fitted together and numbered through."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup.heuristics import logistic, neighbours, stumps
from zsml_jax.weaksup.heuristics.logistic import Logistic
from zsml_jax.weaksup.heuristics.neighbours import Neighbours
from zsml_jax.weaksup.heuristics.stumps import Stumps

Family = Literal["stump", "logistic", "neighbours"]
FAMILIES: tuple[Family, ...] = ("stump", "logistic", "neighbours")
Heuristics = Stumps | Logistic | Neighbours


@flax.struct.dataclass
class Candidates:
    """Heuristics of several families, a pytree; the numbers of the second family go on where those of the first end.

    Attributes:
      parts: the heuristics of each family and size of combination.
    """

    parts: tuple[Heuristics, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many heuristics each part has."""
        return tuple(part.feature.shape[0] for part in self.parts)

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n h k"]:
        """Returns the class probabilities of each example by each heuristic."""
        return jnp.concatenate([part.probs(features) for part in self.parts], axis=1)

    @jax.jit
    def take(self, numbers: Int[Array, " m"]) -> "Chosen":
        """Returns the heuristics of these numbers."""
        starts = np.cumsum((0, *self.sizes))
        rows = [jnp.clip(numbers - start, 0, size - 1) for start, size in zip(starts, self.sizes, strict=False)]
        parts = tuple(_rows(part, chosen) for part, chosen in zip(self.parts, rows, strict=True))
        return Chosen(jnp.searchsorted(jnp.asarray(starts[1:]), numbers, side="right"), parts)


@flax.struct.dataclass
class Chosen:
    """m heuristics of mixed families, a pytree.

    Attributes:
      part: the family that each is of, ``(m,)``.
      parts: m heuristics of each family, of which those of the others are not read.
    """

    part: Int[AnyArray, "*batch m"]
    parts: tuple[Heuristics, ...]

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n m k"]:
        """Returns the class probabilities of each example by each heuristic."""
        first, *others = (part.probs(features) for part in self.parts)
        for number, probs in enumerate(others, start=1):
            first = jnp.where((self.part == number)[:, None], probs, first)
        return first

    @jax.jit
    def take(self, rows: Int[AnyArray, " m"]) -> "Chosen":
        """Returns these rows."""
        return Chosen(jnp.asarray(self.part)[rows], tuple(_rows(part, rows) for part in self.parts))

    def put(self, at: Array, other: "Chosen") -> "Chosen":
        """Returns the heuristics with rows from ``at`` on replaced by those of the other."""
        write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, at, axis=0)
        merged = []
        for mine, theirs in zip(self.parts, other.parts, strict=True):
            if isinstance(mine, Neighbours) and isinstance(theirs, Neighbours):
                feature, labels = write(mine.feature, theirs.feature), write(mine.labels, theirs.labels)
                merged.append(dataclasses.replace(mine, feature=feature, labels=labels))
            else:
                merged.append(jax.tree.map(write, mine, theirs))
        return Chosen(write(self.part, other.part), tuple(merged))

    @property
    def features(self) -> list[list[int]]:
        """The columns that each heuristic reads."""
        columns = [np.asarray(part.feature).reshape(len(self.part), -1) for part in self.parts]
        return [sorted(set(columns[part][row].tolist())) for row, part in enumerate(np.asarray(self.part))]


def combinations(
    d: int, cardinality: int, *, limit: int = 0, key: Key | None = None
) -> tuple[Int[np.ndarray, "_ _"], ...]:
    """Returns the combinations of columns of each size up to ``cardinality``.

    Args:
      d: the number of columns.
      cardinality: the largest size.
      limit: of each size take at most so many, drawn without replacement; 0 takes all.
      key: the random key, where there is a limit.

    Raises:
      ValueError: if a number is out of range, or there is a limit and no key.
    """
    if not 1 <= cardinality <= d:
        raise ValueError(f"cardinality must lie between 1 and the {d} features, got {cardinality}")
    if limit < 0 or (limit and key is None):
        raise ValueError(f"limit must not be negative, and needs a key, got {limit} and {key}")
    chosen = []
    for size in range(1, cardinality + 1):
        every = np.array(list(itertools.combinations(range(d), size)))
        if key is not None and 0 < limit < len(every):
            picked = jax.random.choice(jax.random.fold_in(key, size), len(every), (limit,), replace=False)
            every = every[np.sort(np.asarray(picked))]
        chosen.append(every)
    return tuple(chosen)


def fit(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    k: int,
    families: Sequence[Family],
    columns: tuple[Int[AnyArray, "_ _"], ...],
) -> Candidates:
    """Fits every family on every combination; stumps read single features only.

    Args:
      features: labelled examples.
      labels: class indices.
      weights: of each example, zero to leave it out.
      k: the number of classes.
      families: what is fitted.
      columns: the combinations, as :func:`combinations` gives them.

    Raises:
      ValueError: if a family is unknown or named twice, or there is none.
    """
    if not families or len(set(families)) < len(families) or set(families) - set(FAMILIES):
        raise ValueError(f"families must name some of {FAMILIES}, each once, got {tuple(families)}")
    parts: list[Heuristics] = []
    for family in families:
        if family == "stump":
            single = columns[0][:, 0]
            found = stumps.fit(features[:, single], labels, weights, k)
            parts.append(dataclasses.replace(found, feature=jnp.asarray(single)))
        else:
            fit_one = logistic.fit if family == "logistic" else neighbours.fit
            parts += [fit_one(features, labels, weights, k, size) for size in columns]
    return Candidates(tuple(parts))


def _rows(part: Heuristics, rows: Array | np.ndarray) -> Heuristics:
    if isinstance(part, Neighbours):  # whose points are of all of them
        return dataclasses.replace(part, feature=jnp.asarray(part.feature)[rows], labels=jnp.asarray(part.labels)[rows])
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], part)
