"""Architecture search: which adapter, within a budget of parameters, is worth what it costs.

Candidates are configs, such as MoRe with other numbers of blocks, ranks and targets, each with several learning rates
and seeds. Successive halving trains all of them a little, and of each rung keeps the best; what is compared is the mean
over seeds of a held-out score. There is no place for a test split: :class:`Task` has a training and a validation part,
and whoever reports a test result trains the chosen config anew (:mod:`.method_file`).

A plain halving by score would leave one candidate, often the largest. This one ranks points by fronts (nondominated
sorting, Srinivas and Deb 1994): a point is in the first front if no other has as few parameters and a better score, or
fewer and as good a one; in the second if that holds among the rest, and so on. So small candidates survive as long as
nothing as small is better, and the first front is never cut.

Learning rates and seeds of a program are stacked and vmapped, and so are ranks where :mod:`.rank_masks` can hold them
in the arrays of the largest; everything else that is static is a program of its own.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.evaluate.bootstrap import Interval, seed_interval
from zsml_jax.peft import rank_masks
from zsml_jax.peft.adapter import Adapter
from zsml_jax.peft.method import LowRank, Method
from zsml_jax.train import halving, sweep
from zsml_jax.train.checkpoint import Checkpointer
from zsml_jax.train.points import Point, Points
from zsml_jax.train.shuffling import shuffled_batch
from zsml_jax.train.state import init_state
from zsml_jax.train.step import make_step
from zsml_jax.train.study import Study
from zsml_jax.typing import AnyArray, Array, Key, Params, PyTree

_SCORE = "score"


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What candidates are trained on and judged by.

    Attributes:
      adapt: ``(method, key, params) -> adapter``: a fresh adapter with whatever head the task has.
      loss: ``(adapter, params, rows, key) -> loss``, the mean over rows.
      score: ``(adapter, params, rows) -> (n,)``, a number for each row, such as 1 where the prediction is right; a
        large mean is good.
      optimizer: ``(adapter, learning_rate) -> optimizer`` of the tree ``{"adapter": adapter}``.
      params: the model's, which no trial changes.
      train: rows to train on, a pytree of arrays of n rows each.
      validation: rows to judge by; none of them may be among the training or the test rows.
      batch_size: rows of a step; each epoch takes them in an order of the trial's own.
      chunk: validation rows at a time.
    """

    adapt: Callable[[Method, Key, Params], Adapter]
    loss: Callable[[Adapter, Params, PyTree, Key], Array]
    score: Callable[[Adapter, Params, PyTree], Array]
    optimizer: Callable[[Adapter, Any], Any]
    params: Params
    train: PyTree
    validation: PyTree
    batch_size: int = 32
    chunk: int = 64

    def __post_init__(self):
        if self.batch_size < 1 or self.batch_size > (n := len(jax.tree.leaves(self.train)[0])):
            raise ValueError(f"batch_size must be at least 1 and at most the {n} training rows, got {self.batch_size}")


class Candidate(NamedTuple):
    """A config, and how many parameters its adapter has, the head not counted."""

    method: Method
    parameters: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One config at one learning rate, after the last rung that it saw.

    Attributes:
      method: the config.
      learning_rate: of the adapter.
      parameters: those of the adapter.
      steps: steps that were done.
      scores: the mean validation score of each seed; NaN where training diverged.
    """

    method: Method
    learning_rate: float
    parameters: int
    steps: int
    scores: tuple[float, ...]

    @property
    def score(self) -> float:
        """The mean over seeds; NaN if one has diverged."""
        return float(np.mean(self.scores))

    @property
    def interval(self) -> Interval:
        """The mean over seeds with Student's interval."""
        return seed_interval(np.asarray(self.scores))


class SearchResult(NamedTuple):
    """What a search found.

    Attributes:
      entries: all points, with the scores of the last rung that each saw.
      front: of the points that did all steps those that no other one beats in parameters and score, fewest first.
      over_budget: candidates that had too many parameters; none of them was trained.
      rungs: the decisions; trial t is seed ``t % seeds`` of entry ``t // seeds``.
    """

    entries: tuple[Entry, ...]
    front: tuple[Entry, ...]
    over_budget: tuple[Candidate, ...]
    rungs: tuple[halving.Rung, ...]

    @property
    def best(self) -> Entry:
        """The last of the front: the best score within the budget, with the fewest parameters that reach it."""
        return self.front[-1]


def search(
    task: Task,
    methods: Sequence[Method],
    learning_rates: Sequence[float],
    *,
    budget: int,
    rungs: Sequence[int],
    key: Key,
    seeds: int = 3,
    reduction_factor: int = 3,
    mask_ranks: bool = True,
    mode: sweep.Mode = "vmap",
    batch_size: int = 1,
    checkpoints: Checkpointer | None = None,
    chunk: int | None = None,
) -> SearchResult:
    """Searches over configs and learning rates by successive halving.

    Args:
      task: the model, the rows and the score.
      methods: the configs; each once.
      learning_rates: those of each config.
      budget: the largest number of parameters an adapter may have, the head not counted.
      rungs: the steps of each rung, such as ``(20, 40, 100)``. The optimizer's schedule should end after all of them.
      key: the random key.
      seeds: trials of each point, at least 3.
      reduction_factor: one in so many points goes on after a rung, and all of the first front.
      mask_ranks: whether configs that differ only in rank share a program, of the largest rank. Fewer programs are
        compiled: 100 s against 161 s for four ranks of MiniLM, three seeds and 5 steps on two shared cores.
      mode: how trials of a program are run, see :func:`zsml_jax.train.sweep.run`.
      batch_size: trials at a time in the mode ``"map"``.
      checkpoints: as in :func:`zsml_jax.train.halving.run`: a search that was killed goes on there.
      chunk: steps between two checkpoints; whole rungs if None.

    Returns:
      The points and the front.

    Raises:
      ValueError: if a config or a rate is named twice, no candidate is within the budget, there are too few seeds, or
        no trial of a point that did all steps is finite.
    """
    if seeds < 3:
        raise ValueError(f"seeds must be at least 3, got {seeds}")
    for name, values in {"methods": methods, "learning_rates": learning_rates}.items():
        if not values or len(set(values)) < len(values):
            raise ValueError(f"{name} must hold at least one value, each once, got {list(values)}")
    within, over = candidates(task, methods, budget)
    points, costs = _points(task, within, learning_rates, mask_ranks)

    def choose(study: Study, wanted: int) -> Int[np.ndarray, " m"]:
        which = study.trials[::seeds] // seeds
        scores = study.metric(_SCORE).reshape(-1, seeds).mean(axis=1)
        fronts = nondominated(costs[which], scores)
        order = np.lexsort((-np.nan_to_num(scores, nan=-np.inf), fronts))
        kept = which[order[: max(wanted // seeds, 1, int((fronts == 0).sum()))]]
        return (kept[:, None] * seeds + np.arange(seeds)).ravel()

    trials = _Trials(task)
    done = halving.run(
        trials.start,
        trials.step,
        points,
        key=key,
        rungs=rungs,
        metric=_SCORE,
        goal="max",
        reduction_factor=reduction_factor,
        seeds=seeds,
        mode=mode,
        args=(task.params, task.train, task.validation),
        batch_size=batch_size,
        evaluate=trials.evaluate,
        choose=choose,
        checkpoints=checkpoints,
        chunk=chunk,
    )
    settings = list(itertools.product(within, learning_rates))
    return _result(settings, done.rungs, seeds, over)


def candidates(task: Task, methods: Sequence[Method], budget: int) -> tuple[list[Candidate], list[Candidate]]:
    """Returns the configs within a budget and those over it; no array is made.

    Raises:
      ValueError: if none is within it, or one does not fit the model.
    """
    all_of_them = [Candidate(method, _abstract(task, method).parameters) for method in methods]
    within = [candidate for candidate in all_of_them if candidate.parameters <= budget]
    if not within:
        least = min(candidate.parameters for candidate in all_of_them)
        raise ValueError(f"budget must allow at least the smallest candidate's {least:,} parameters, got {budget:,}")
    return within, [candidate for candidate in all_of_them if candidate.parameters > budget]


def nondominated(costs: Float[AnyArray, " n"] | Int[AnyArray, " n"], scores: Float[AnyArray, " n"]) -> np.ndarray:
    """Returns the number of the front of each point, 0 for those that none beats; a score of NaN loses to all.

    >>> nondominated(np.array([1, 2, 2, 3]), np.array([0.5, 0.7, 0.6, 0.6])).tolist()
    [0, 0, 1, 2]

    Args:
      costs: a small one is good.
      scores: a large one is good.
    """
    scores = np.nan_to_num(np.asarray(scores, float), nan=-np.inf)
    no_worse = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    better = no_worse & ((costs[:, None] < costs) | (scores[:, None] > scores))
    fronts = np.full(len(scores), -1)
    while (left := fronts < 0).any():
        fronts[left & ~better[left].any(axis=0)] = fronts.max() + 1
    return fronts


class _Trials:
    """Trials as pure functions of their state, for a study; a static ``program`` and the numbers of a point."""

    def __init__(self, task: Task):
        self.task = task

    def start(
        self, key: Key, numbers: Mapping[str, Array], params: Params, *rows: PyTree, program: tuple[Method, bool]
    ) -> dict[str, PyTree]:
        init_key, run_key = jax.random.split(key)
        adapter = self.task.adapt(program[0], init_key, params)
        optimizer = self.task.optimizer(adapter, numbers["learning_rate"])
        run = init_state({"adapter": adapter}, optimizer, key=run_key)
        return {"run": run, _SCORE: jnp.float32(jnp.nan)}

    def step(
        self,
        key: Key,
        numbers: Mapping[str, Array],
        state: dict[str, Any],
        params: Params,
        train: PyTree,
        validation: PyTree,
        *,
        program: tuple[Method, bool],
    ) -> dict[str, PyTree]:
        run = state["run"]

        def loss(tree: PyTree, batch: PyTree, key: Key) -> tuple[Array, dict[str, Array]]:
            return self.task.loss(_of_point(tree["adapter"], numbers, program), params, batch, key), {}

        optimizer = self.task.optimizer(run.params["adapter"], numbers["learning_rate"])
        run, _ = make_step(loss, optimizer)(run, shuffled_batch(train, run.step, self.task.batch_size, key=key))
        return {**state, "run": run}

    def evaluate(
        self,
        key: Key,
        numbers: Mapping[str, Array],
        state: dict[str, Any],
        params: Params,
        train: PyTree,
        validation: PyTree,
        *,
        program: tuple[Method, bool],
    ) -> dict[str, PyTree]:
        adapter = _of_point(state["run"].params["adapter"], numbers, program)
        alone = lambda row: self.task.score(adapter, params, jax.tree.map(lambda leaf: leaf[None], row))[0]
        scores = jax.lax.map(alone, validation, batch_size=self.task.chunk)
        mean = jnp.mean(scores.astype(jnp.float32))
        return {**state, _SCORE: jnp.where(state["run"].finite, mean, jnp.nan)}


def _of_point(adapter: Adapter, numbers: Mapping[str, Array], program: tuple[Method, bool]) -> Adapter:
    """The adapter of a trial, cut down to its rank if its program holds several."""
    return rank_masks.narrow(adapter, numbers["rank"], numbers["alpha"]) if program[1] else adapter


def _abstract(task: Task, method: Method) -> Adapter:
    return jax.eval_shape(lambda params: task.adapt(method, jax.random.key(0), params), task.params)


def _points(
    task: Task, within: Sequence[Candidate], learning_rates: Sequence[float], mask_ranks: bool
) -> tuple[Points, Int[np.ndarray, " n"]]:
    """The points, config by config with all rates of each, and their numbers of parameters."""
    families: dict[Any, list[Method]] = {}
    for method, _ in within:
        families.setdefault(_family(method), []).append(method)
    rows = []
    for method, _ in within:
        members: Any = families[_family(method)]
        wide: Any = None
        if mask_ranks and len(members) > 1:
            shapes = {layer.path: layer.shape for m in members for layer in _abstract(task, m).layers}
            wide = rank_masks.widest(members, shapes)
        # Fields that a point does not use are there all the same, since all points have the same ones.
        numbers = {"rank": 0, "alpha": 0.0}
        if wide is not None:
            narrow: Any = method
            numbers = {"rank": getattr(narrow, wide.rank_field), "alpha": rank_masks.scale_in(narrow, wide)}
        static = {"program": (method if wide is None else wide, wide is not None)}
        rows += [Point({"learning_rate": rate, **numbers}, static) for rate in learning_rates]
    return Points(tuple(rows)), np.repeat([candidate.parameters for candidate in within], len(learning_rates))


def _family(method: Method) -> Any:
    """What configs have in common that differ in rank and ``alpha`` only."""
    if not isinstance(method, LowRank):
        return method
    rank: dict[str, Any] = {method.rank_field: 1}
    return dataclasses.replace(method, **rank, alpha=1.0)


def _result(
    settings: Sequence[tuple[Candidate, float]],
    rungs: Sequence[halving.Rung],
    seeds: int,
    over: Sequence[Candidate],
) -> SearchResult:
    last: dict[int, tuple[int, tuple[float, ...]]] = {}
    for rung in rungs:
        for trials, scores in zip(rung.trials.reshape(-1, seeds), rung.metric.reshape(-1, seeds), strict=True):
            last[int(trials[0]) // seeds] = rung.steps, tuple(scores.tolist())
    entries = tuple(Entry(*candidate[:1], rate, candidate.parameters, *last[i]) for i, (candidate, rate) in
                    enumerate(settings))  # fmt: skip
    ended = [entries[trial // seeds] for trial in rungs[-1].trials[::seeds]]
    if not (finite := [entry for entry in ended if np.isfinite(entry.score)]):
        raise ValueError("learning_rates must leave at least one point that does not diverge, got none")
    costs, scores = (np.array([getattr(entry, name) for entry in finite]) for name in ("parameters", "score"))
    front = [entry for entry, number in zip(finite, nondominated(costs, scores), strict=True) if number == 0]
    unique = {(entry.parameters, entry.score): entry for entry in reversed(front)}
    return SearchResult(entries, tuple(unique[place] for place in sorted(unique)), tuple(over), tuple(rungs))
