r"""Interactive weak supervision: an expert says which labelling functions are useful (Boecking et al., ICLR 2021).

Candidates are the classifiers of :mod:`.snuba`. A bagged ensemble of small networks predicts from a function's
votes whether the expert would call it useful; the next function to ask about has the largest straddle

.. math:: 1.96\, \sigma_j - |\mu_j - r|,

which is large where usefulness is near the bar r, or unsure. In the end ``"LSE-a"`` takes the functions that were
called useful and all with :math:`\mu_j \ge r`; ``"LSE-ac"`` of the latter only those with the largest
:math:`(2 \mu_j - 1) \cdot \text{coverage}_j`.

The expert is a function of a :class:`Question`: labels stand in for one, or a person at the terminal answers
(:func:`ask_at_terminal`). With more than two classes a function's votes are described class by class. Nobody is asked
about functions that never vote, and those that were called useless are never taken.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.typing import AnyArray, Array, Key
from zsml_jax.weaksup import functions as function_sets
from zsml_jax.weaksup import usefulness
from zsml_jax.weaksup.functions import LabelingFunctions
from zsml_jax.weaksup.heuristics import bands, candidates
from zsml_jax.weaksup.heuristics.candidates import Candidates, Family
from zsml_jax.weaksup.heuristics.stumps import Stumps
from zsml_jax.weaksup.partly_labelled import checked_examples
from zsml_jax.weaksup.vote_matrix import ABSTAIN, summed_over_rows


@dataclasses.dataclass(frozen=True)
class Config:
    """What is static in IWS.

    Attributes:
      families: the classifiers to choose from.
      queries: how many functions the expert is asked about after the first ones.
      first_queries: random functions that are asked about first.
      final: which functions are taken in the end.
      limit: unverified functions at most, for ``"LSE-ac"``.
      bar: r, the usefulness to reach.
      accuracy: on its votes for labelled examples, from which on a function is useful where labels are the expert.
      cardinality: the largest number of features of a classifier.
      max_combinations: of each size, drawn at random; 0 takes all.
      ensemble: networks.
    """

    families: tuple[Family, ...] = ("stump", "logistic")
    queries: int = 25
    first_queries: int = 4
    final: Literal["LSE-a", "LSE-ac"] = "LSE-ac"
    limit: int = 100
    bar: float = 0.6
    accuracy: float = 0.6
    cardinality: int = 1
    max_combinations: int = 0
    ensemble: int = 50

    def __post_init__(self):
        if self.final not in ("LSE-a", "LSE-ac"):
            raise ValueError(f"final must be 'LSE-a' or 'LSE-ac', got {self.final!r}")
        if min(self.queries, self.first_queries, self.ensemble) < 1 or self.limit < 0:
            given = (self.queries, self.first_queries, self.ensemble, self.limit)
            raise ValueError(f"queries, first_queries and ensemble must be at least 1, limit at least 0, got {given}")
        if not (0 < self.bar < 1 and 0 < self.accuracy < 1):
            raise ValueError(f"bar and accuracy must lie between 0 and 1, got {self.bar} and {self.accuracy}")


def fit(
    features: Float[AnyArray, "n d"],
    labels: Int[AnyArray, " n"],
    config: Config | None = None,
    *,
    key: Key,
    expert: Callable[["Question"], bool] | None = None,
) -> LabelingFunctions:
    """Finds labelling functions with the help of an expert.

    Args:
      features: one row an example, with a label or without.
      labels: class indices, and -1 for the examples without a label.
      config: what is static.
      key: the random key of the first questions, of the bagging and of the networks.
      expert: from a :class:`Question` to whether the function is useful; the labels where it is None.

    Returns:
      The functions.

    Raises:
      NoFunctionsError: if no candidate is sure enough of any example to vote on it, or the expert calls all useless.
      ValueError: if features or labels are not sound, a class has no label, or there are fewer candidates than
        questions.
    """
    config = config or Config()
    x, labelled, truth, k = checked_examples(features, labels)
    combination_key, first_key, model_key = jax.random.split(key, 3)
    columns = candidates.combinations(
        x.shape[1], config.cardinality, limit=config.max_combinations, key=combination_key
    )
    made = _candidates(x, labelled, truth, columns, k=k, families=config.families)
    found, widths, votes, accuracy, coverage = made
    h = len(widths)
    if (asked_in_all := config.first_queries + config.queries) > h:
        raise ValueError(f"queries and first_queries must not exceed the {h} candidates, got {asked_in_all}")
    described = usefulness.describe(votes, k)
    silent = np.asarray((votes == ABSTAIN).all(axis=0))
    if silent.all():
        raise function_sets.NoFunctionsError
    asked = [int(j) for j in jax.random.permutation(first_key, h) if not silent[j]][: config.first_queries]

    def answer(number: int) -> bool:
        if expert is None:
            return bool(accuracy[number] > config.accuracy)
        one = _functions(found, widths, jnp.array([number]), x, k)
        return bool(expert(_question(number, one, x, float(accuracy[number]), k)))

    answers = [answer(j) for j in asked]
    for i in range(config.queries):
        mean, deviation = _predict(described, asked, answers, jax.random.fold_in(model_key, i), config)
        straddle = 1.96 * deviation - np.abs(mean - config.bar)
        straddle[asked] = -np.inf
        straddle[silent] = -np.inf
        if np.isneginf(straddle.max()):
            break
        asked.append(int(straddle.argmax()))
        answers.append(answer(asked[-1]))
    mean, _ = _predict(described, asked, answers, jax.random.fold_in(model_key, config.queries), config)
    chosen = final_set(mean, np.asarray(coverage), np.array(asked), np.array(answers), silent, config)
    return _functions(found, widths, jnp.asarray(chosen), x, k)


class Region(NamedTuple):
    """Where a function votes for a class.

    Attributes:
      label: the class.
      coverage: the share of all examples that it gives this class.
      low: the least value of each of its features among them.
      high: the largest.
    """

    label: int
    coverage: float
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """What an expert is told of a function.

    Attributes:
      number: among the candidates.
      family: stump, logistic or neighbours.
      features: the columns that it reads.
      coverage: the share of all examples that it votes on.
      accuracy: on its votes for labelled examples; NaN where it has none.
      rule: what it is, in words.
      regions: what it votes for where, for each class that it votes for.
    """

    number: int
    family: str
    features: tuple[int, ...]
    coverage: float
    accuracy: float
    rule: str
    regions: tuple[Region, ...]


def ask_at_terminal(question: Question, classes: Sequence[str] = ()) -> bool:
    """Shows a function at the terminal and asks a person whether it is useful; an expert for :func:`fit`.

    Args:
      question: what is known of the function.
      classes: the names of the classes, if they have any.
    """
    print(question.rule)
    for label, coverage, low, high in question.regions:
        name = classes[label] if classes else f"class {label}"
        ranges = zip(question.features, low, high, strict=True)
        where = ", ".join(f"feature {column} from {a:.4g} to {b:.4g}" for column, a, b in ranges)
        print(f"  {name} for {coverage:.1%} of the examples: {where}")
    if not np.isnan(question.accuracy):
        print(f"  right for {question.accuracy:.0%} of the labelled examples that it votes on")
    while True:
        reply = input("useful? [y/n] ").strip().lower()
        if reply in ("y", "yes", "n", "no"):
            return reply.startswith("y")


def final_set(
    mean: Float[np.ndarray, " h"],
    coverage: Float[np.ndarray, " h"],
    asked: Int[np.ndarray, " q"],
    answers: Bool[np.ndarray, " q"],
    silent: Bool[np.ndarray, " h"],
    config: Config,
) -> Int[np.ndarray, " m"]:
    """Returns the numbers of the functions that are taken, those called useful first.

    If none was called useful and none is predicted to be, the one with the largest mean is taken of those left.

    Raises:
      NoFunctionsError: if none is left.
    """
    verified = asked[answers]
    left = np.setdiff1d(np.flatnonzero(~silent), asked)
    rest = left[mean[left] >= config.bar]
    value = (2 * mean - 1) * coverage
    rest = rest[np.argsort(-value[rest], kind="stable")]
    if config.final == "LSE-ac":
        rest = rest[: config.limit]
    chosen = np.concatenate([verified, rest])
    if not len(chosen) and not len(left):
        raise function_sets.NoFunctionsError("the expert called every function useless")
    return chosen if len(chosen) else left[[mean[left].argmax()]]


def _functions(found: Candidates, widths: Array, rows: Array, x: Array, k: int) -> LabelingFunctions:
    """The candidates of these numbers as a set, which has voted."""
    m = len(rows)
    functions = LabelingFunctions(
        heuristics=found.take(rows),
        widths=widths[rows],
        target=jnp.full(m, ABSTAIN),
        kept=jnp.ones(m, bool),
        prior=jnp.asarray(1 / k, x.dtype),
        fitted_votes=jnp.zeros((0, m), jnp.int8),
        n_features=x.shape[1],
    )
    return dataclasses.replace(functions, fitted_votes=function_sets.vote(functions, x))


def _question(number: int, one: LabelingFunctions, x: Array, accuracy: float, k: int) -> Question:
    columns = one.heuristics.features[0]
    part = one.heuristics.parts[int(one.heuristics.part[0])]
    family = type(part).__name__.lower().rstrip("s")
    threshold = f" at {float(part.threshold[0]):.4g}" if isinstance(part, Stumps) else ""
    bar = float(one.prior + one.widths[0])
    rule = (
        f"{family} on feature {', '.join(map(str, columns))}{threshold}, votes where a class has a probability of at "
        f"least {bar:.2f}"
    )
    votes, read = np.asarray(one.fitted_votes)[:, 0], np.asarray(x)[:, columns]
    regions = []
    for label in range(k):
        if (voted := votes == label).any():
            low, high = read[voted].min(axis=0), read[voted].max(axis=0)
            regions.append(Region(label, float(voted.mean()), tuple(low.tolist()), tuple(high.tolist())))
    return Question(number, family, tuple(columns), float((votes != ABSTAIN).mean()), accuracy, rule, tuple(regions))


@functools.partial(jax.jit, static_argnames=("k", "families"))
def _candidates(
    x: Array, labelled: Array, labels: Array, columns: tuple[Array, ...], *, k: int, families: tuple[Family, ...]
) -> tuple[Candidates, Array, Array, Array, Array]:
    x_labelled, prior = x[labelled], 1 / k
    found = candidates.fit(x_labelled, labels, jnp.ones(len(labels)), k, families, columns)
    probs = found.probs(x_labelled)
    widths = bands.best_widths(probs, labels, prior=prior)
    votes = bands.votes(probs, widths, prior=prior)
    voted = votes != ABSTAIN
    accuracy = (votes == labels[:, None]).sum(axis=0) / jnp.where(voted.any(axis=0), voted.sum(axis=0), jnp.nan)
    voting = lambda block: (bands.votes(found.probs(block), widths, prior=prior) != ABSTAIN).sum(axis=0)
    return found, widths, votes, accuracy, summed_over_rows(voting, x, size=2048) / len(x)


def _predict(
    described: Array, asked: list[int], answers: list[bool], key: Key, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of the ensemble, whose shapes are the same at every query."""
    places = config.first_queries + config.queries
    rows, target, weight = np.zeros(places, int), np.zeros(places, np.float32), np.zeros(places, np.float32)
    rows[: len(asked)], target[: len(asked)], weight[: len(asked)] = asked, answers, 1
    mean, deviation = usefulness.predict(
        described, jnp.asarray(rows), jnp.asarray(target), jnp.asarray(weight), key, ensemble=config.ensemble
    )
    return np.array(mean), np.array(deviation)
