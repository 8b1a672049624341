"""A set of labelling functions that was found by fitting: it votes on any examples, new ones too."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.weaksup.heuristics import bands
from zsml_jax.weaksup.heuristics.candidates import Chosen
from zsml_jax.weaksup.vote_matrix import ABSTAIN, checked_features, mapped_over_rows


class NoFunctionsError(ValueError):
    """No function is left to vote: no heuristic is sure enough of any example, or an expert wants none."""

    def __init__(
        self,
        message: str = "no heuristic is sure enough of any example to vote on it; give features that tell the classes "
        "apart, or more labels",
    ):
        super().__init__(message)


@flax.struct.dataclass
class LabelingFunctions:
    """m heuristics with abstain bands, a pytree.

    Attributes:
      heuristics: the classifiers.
      widths: of their abstain bands, ``(m,)``.
      target: the class that a function may vote for, ``(m,)``, or -1 for all classes. A function with a target is a
        classifier of the target against the rest, and abstains on the rest.
      kept: whether the function is one of the set, ``(m,)``; the others abstain. Only under ``jit`` are there others.
      prior: what the width is added to.
      fitted_votes: the votes on the examples that the functions were fitted with, ``(n, m)``.
      n_features: the columns of the features.
    """

    heuristics: Chosen
    widths: Float[AnyArray, "*batch m"]
    target: Int[AnyArray, "*batch m"]
    kept: Bool[AnyArray, "*batch m"]
    prior: Float[AnyArray, "*batch"]
    fitted_votes: Int[AnyArray, "*batch n m"]
    n_features: int = flax.struct.field(pytree_node=False)

    def __len__(self) -> int:
        return self.widths.shape[-1]

    def votes(self, features: Float[AnyArray, "n d"]) -> Int[Array, "n m"]:
        """Returns the vote of each function, -1 for abstain.

        Raises:
          ValueError: if the features are not finite, or have other columns than those of the fit.
        """
        return vote(self, checked_features(features, d=self.n_features))


@jax.jit
def vote(functions: LabelingFunctions, features: Float[Array, "n d"]) -> Int[Array, "n m"]:
    """Returns the vote of each function on checked features."""

    def block(x: Array) -> Array:
        given = bands.votes(functions.heuristics.probs(x), functions.widths, prior=functions.prior)
        return targeted(given, jnp.asarray(functions.target), jnp.asarray(functions.kept))

    return mapped_over_rows(block, features, size=2048).astype(jnp.int8)


def targeted(votes: Int[Array, "n m"], target: Int[Array, " m"], kept: Bool[Array, " m"]) -> Int[Array, "n m"]:
    """Returns the votes with 1 turned into a function's target, where it has one, and the rest into abstaining."""
    for_target = jnp.where(votes == 1, target, ABSTAIN)
    return jnp.where(kept, jnp.where(target >= 0, for_target, votes), ABSTAIN)


def without_empty_places(functions: LabelingFunctions) -> LabelingFunctions:
    """Returns the set with the functions that are kept, and no others; not under ``jit``.

    Raises:
      NoFunctionsError: if none is kept.
    """
    rows = np.flatnonzero(np.asarray(functions.kept))
    if not len(rows):
        raise NoFunctionsError
    return _taken(functions, rows)


@jax.jit
def _taken(functions: LabelingFunctions, rows: Int[Array, " m"]) -> LabelingFunctions:
    part = lambda leaf: jnp.asarray(leaf)[rows]
    return dataclasses.replace(
        functions,
        heuristics=functions.heuristics.take(rows),
        widths=part(functions.widths),
        target=part(functions.target),
        kept=part(functions.kept),
        fitted_votes=jnp.asarray(functions.fitted_votes)[:, rows],
    )


def joined(sets: Sequence[LabelingFunctions]) -> LabelingFunctions:
    """Returns one set with the functions of all, which were fitted on the same examples."""
    first = sets[0]
    stack = lambda *leaves: jnp.concatenate([jnp.asarray(leaf) for leaf in leaves])
    parts = []
    for families in zip(*(s.heuristics.parts for s in sets), strict=True):
        if hasattr(families[0], "points"):
            features = stack(*(f.feature for f in families))
            parts.append(
                dataclasses.replace(families[0], feature=features, labels=stack(*(f.labels for f in families)))
            )
        else:
            parts.append(jax.tree.map(stack, *families))
    return dataclasses.replace(
        first,
        heuristics=Chosen(stack(*(s.heuristics.part for s in sets)), tuple(parts)),
        widths=stack(*(s.widths for s in sets)),
        target=stack(*(s.target for s in sets)),
        kept=stack(*(s.kept for s in sets)),
        fitted_votes=jnp.concatenate([jnp.asarray(s.fitted_votes) for s in sets], axis=1),
    )
