r"""Snuba: labelling functions chosen among many small classifiers, round by round (Varma and Ré, VLDB 2018).

Each round fits classifiers of few features on those labelled examples that the functions so far leave vague; gives each
the abstain band with the best F1; keeps the one with the best mean of its micro-F1 on all labelled examples, which is
the share that it gets right, and of its Jaccard distance to what the kept ones already cover; and finds the examples
that are now vague:

.. math:: \max_y p(y | \lambda_1 \dots \lambda_m) \le \tfrac1K + \gamma, \quad \gamma = \tfrac12 - m^{-3/2}

by the posterior of a naive-Bayes model of the votes (:mod:`.aggregator`). It ends when no example is vague, or after
23 rounds.

With more than two classes, ``"unipolar"`` solves each class against the rest, whose votes for the rest become abstains,
and ``"multipolar"`` chooses among classifiers of all classes (Roberts et al., NeurIPS 2022).
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup import aggregator
from zsml_jax.weaksup import functions as function_sets
from zsml_jax.weaksup.functions import LabelingFunctions
from zsml_jax.weaksup.heuristics import bands, candidates
from zsml_jax.weaksup.heuristics.candidates import Candidates, Chosen, Family
from zsml_jax.weaksup.heuristics.neighbours import Neighbours
from zsml_jax.weaksup.partly_labelled import checked_examples
from zsml_jax.weaksup.vote_matrix import ABSTAIN, summed_over_rows


@dataclasses.dataclass(frozen=True)
class Config:
    """What is static in Snuba.

    Attributes:
      polarity: of three and more classes; two classes need none.
      families: the classifiers to choose from.
      rounds: at most.
      first_keep: functions that the first round keeps, if there are as many; the others keep one each.
      cardinality: the largest number of features of a classifier.
      max_combinations: of each size, drawn at random; 0 takes all.
      coverage_rows: how many examples the Jaccard distance is measured on, drawn at random; 0 takes all.
    """

    polarity: Literal["unipolar", "multipolar"] = "multipolar"
    families: tuple[Family, ...] = ("stump", "logistic")
    rounds: int = 23
    first_keep: int = 3
    cardinality: int = 1
    max_combinations: int = 0
    coverage_rows: int = 0

    def __post_init__(self):
        if self.polarity not in ("unipolar", "multipolar"):
            raise ValueError(f"polarity must be 'unipolar' or 'multipolar', got {self.polarity!r}")
        if self.rounds < 1 or self.first_keep < 1:
            raise ValueError(f"rounds and first_keep must be at least 1, got {self.rounds} and {self.first_keep}")
        if self.max_combinations < 0 or self.coverage_rows < 0:
            given = f"{self.max_combinations} and {self.coverage_rows}"
            raise ValueError(f"max_combinations and coverage_rows must not be negative, got {given}")


class _State(NamedTuple):
    chosen: Chosen
    widths: Array
    labelled_votes: Array
    votes: Array
    count: Array
    vague: Array
    rounds: Array


def fit(
    features: Float[AnyArray, "n d"], labels: Int[AnyArray, " n"], config: Config | None = None, *, key: Key
) -> LabelingFunctions:
    """Finds labelling functions.

    Args:
      features: one row an example, with a label or without.
      labels: class indices, and -1 for the examples without a label. They decide shapes, and cannot be traced.
      config: what is static.
      key: the random key of what is drawn.

    Returns:
      The functions, at most ``first_keep + rounds - 1`` of them, of each class if unipolar; each votes on some example.

    Raises:
      NoFunctionsError: if no heuristic is sure enough of any example to vote on it.
      ValueError: if features or labels are not sound, a class has no label, or the config asks for what cannot be.
    """
    config = config or Config()
    x, labelled, truth, k = checked_examples(features, labels)
    combination_key, row_key = jax.random.split(key)
    columns = candidates.combinations(
        x.shape[1], config.cardinality, limit=config.max_combinations, key=combination_key
    )
    rows = jnp.arange(len(x))
    if 0 < config.coverage_rows < len(x):
        rows = jax.random.choice(row_key, len(x), (config.coverage_rows,), replace=False)
    if k > 2 and config.polarity == "unipolar":
        every = [
            _fit(x, labelled, (truth == label).astype(int), rows, columns, label, k=2, config=config)
            for label in range(k)
        ]
        found = function_sets.joined(every)
    else:
        found = _fit(x, labelled, truth, rows, columns, ABSTAIN, k=k, config=config)
    return found if isinstance(found.kept, jax.core.Tracer) else function_sets.without_empty_places(found)


@functools.partial(jax.jit, static_argnames=("k", "config"))
def _fit(
    x: Array,
    labelled: Array,
    labels: Array,
    rows: Array,
    columns: tuple[Array, ...],
    target: Array,
    *,
    k: int,
    config: Config,
) -> LabelingFunctions:
    n_labelled, prior = labels.shape[0], jnp.asarray(1 / k, x.dtype)
    x_labelled, x_covered = x[labelled], x[rows]
    fit_all = lambda weights: candidates.fit(x_labelled, labels, weights, k, config.families, columns)

    nothing = jax.tree.map(jnp.zeros_like, fit_all(jnp.ones(n_labelled)))  # only its shapes are read
    keep = min(config.first_keep, sum(nothing.sizes))
    places = keep + config.rounds - 1 + keep - 1  # the last round, too, writes as many as the first

    def round_of(state: _State) -> _State:
        found = fit_all(state.vague.astype(x.dtype))
        probs = found.probs(x_labelled)
        widths = bands.best_widths(probs, labels, prior=prior)
        votes = bands.votes(probs, widths, prior=prior)
        covered = (state.votes[rows] != ABSTAIN).any(axis=1)
        distance = _jaccard_distance(found, widths, prior, x_covered, covered)
        right = (votes == labels[:, None]).mean(axis=0)
        # A function that never votes is as far from the others as can be, and would win over any that is right.
        score = jnp.where((votes != ABSTAIN).any(axis=0), (right + distance) / 2, -jnp.inf)
        # The same program serves all rounds: each writes as many as the first one keeps, and counts those it keeps.
        best = jax.lax.top_k(score, keep)[1]
        count = state.count + jnp.where(state.rounds == 0, keep, 1)
        chosen, width = found.take(best), widths[best]
        write = lambda old, new, axis: jax.lax.dynamic_update_slice_in_dim(old, new, state.count, axis=axis)
        kept = jnp.arange(places) < count
        every, none = jnp.full(keep, ABSTAIN), state.votes[:0, :keep]
        added = LabelingFunctions(chosen, width, every, jnp.ones_like(every, bool), prior, none, x.shape[1])
        votes_now = jnp.where(kept, write(state.votes, function_sets.vote(added, x), 1), ABSTAIN)
        labelled_now = jnp.where(kept, write(state.labelled_votes, votes[:, best].astype(jnp.int8), 1), ABSTAIN)
        return _State(
            chosen=state.chosen.put(state.count, chosen),
            widths=write(state.widths, width, 0),
            labelled_votes=labelled_now.astype(jnp.int8),
            votes=votes_now.astype(jnp.int8),
            count=count,
            vague=_vague(votes_now, labelled_now, count, k),
            rounds=state.rounds + 1,
        )

    first = _State(
        chosen=_with_points(nothing.take(jnp.zeros(places, int)), x_labelled),
        widths=jnp.zeros(places, x.dtype),
        labelled_votes=jnp.full((n_labelled, places), ABSTAIN, jnp.int8),
        votes=jnp.full((len(x), places), ABSTAIN, jnp.int8),
        count=jnp.asarray(0),
        vague=jnp.ones(n_labelled, bool),
        rounds=jnp.asarray(0),
    )
    unfinished = lambda state: state.vague.any() & (state.rounds < config.rounds)
    last = jax.lax.while_loop(unfinished, round_of, first)
    targets = jnp.full(places, target)
    votes = function_sets.targeted(last.votes, targets, jnp.arange(places) < last.count)
    return LabelingFunctions(
        heuristics=last.chosen,
        widths=last.widths,
        target=targets,
        kept=(votes != ABSTAIN).any(axis=0),
        prior=prior,
        fitted_votes=votes.astype(jnp.int8),
        n_features=x.shape[1],
    )


def _jaccard_distance(found: Candidates, widths: Array, prior: Array, x: Array, covered: Array) -> Array:
    """One less the share, in what a candidate or the kept ones vote on, of what both vote on; one without kept ones."""

    def counts(block: tuple[Array, Array]) -> tuple[Array, Array]:
        x, covered = block
        voting = bands.votes(found.probs(x), widths, prior=prior) != ABSTAIN
        return voting.sum(axis=0), (voting & covered[:, None]).sum(axis=0)

    size, both = summed_over_rows(counts, (x, covered), size=2048)
    either = size + covered.sum() - both
    return 1 - both / jnp.maximum(either, 1)


def _vague(votes: Array, labelled_votes: Array, count: Array, k: int) -> Array:
    weights = aggregator.fit_weights(votes, k)
    sure = aggregator.aggregate(labelled_votes, weights, k).max(axis=1)
    gamma = 0.5 - count.astype(sure.dtype) ** -1.5
    return sure <= 1 / k + gamma


def _with_points(chosen: Chosen, points: Array) -> Chosen:
    parts = (
        dataclasses.replace(part, points=points) if isinstance(part, Neighbours) else part for part in chosen.parts
    )
    return Chosen(chosen.part, tuple(parts))
