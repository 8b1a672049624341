"""What Loki's experiment tells: its tables and plots."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.otter import bounds
from zsml_jax import evaluate
from zsml_jax.report import Column, Document, RunFolder, Table, plot

#: The paper's ablation (section C3): ImageNet, E[d^2] at 250, 500 and 750 observed classes.
PUBLISHED_EXPONENTS = {
    0.5: (61.28, 46.57, 36.31),
    1.0: (52.98, 41.06, 33.14),
    2.0: (46.78, 37.76, 29.88),
    4.0: (47.99, 39.58, 34.65),
    8.0: (65.29, 58.42, 54.90),
}
METHODS = ("argmax", "Loki, classes", "Loki, any node")
CRITERIA = ("ece", "nll", "expected_cost")


def tell_grid(document: Document, folder: RunFolder, grid: dict[int, list[dict[str, dict[str, float]]]]) -> None:
    """Writes E[d^2] and accuracy against the number of observed classes."""
    interval = lambda rows, value: bounds(evaluate.seed_interval(np.array([value(row) for row in rows])))
    curves = {
        figure: {
            method: [interval(rows, lambda row, m=method, f=figure: row[m][f]) for rows in grid.values()]
            for method in METHODS
        }
        for figure in ("squared_distance", "normalized", "accuracy")
    }
    table = Table(
        ["observed", *(Column(method, digits=2) for method in METHODS)]
        + [Column(f"saved by {method}", percent=True) for method in METHODS[1:]],
        title="Mean squared distance, and what Loki saves of the argmax's, paired by seed",
    )
    for i, (m, rows) in enumerate(grid.items()):
        saved = [interval(rows, functools.partial(_saved, method)) for method in METHODS[1:]]
        table.add(m, *(curves["squared_distance"][method][i] for method in METHODS), *saved)
    document.heading("Observed classes")
    document.table(table)
    table = Table(
        ["observed", *(Column(f"{method}, accuracy", percent=True) for method in METHODS)]
        + [Column(f"{method}, E[d^2] / diameter^2", digits=4) for method in METHODS],
        title="Accuracy, and the mean squared distance by the squared diameter",
    )
    for i, m in enumerate(grid):
        table.add(
            m,
            *(curves["accuracy"][method][i][0] for method in METHODS),
            *(curves["normalized"][method][i][0] for method in METHODS),
        )
        for method in METHODS:
            figures: dict[str, Any] = {figure: rows[method][i][0] for figure, rows in curves.items()}
            folder.log(observed=m, method=method, **figures)
    document.table(table)
    for figure, label, scale in (("squared_distance", "E[d²]", 1), ("accuracy", "accuracy (%)", 100)):
        bands = {method: plot.Band(*(scale * np.array(rows).T)) for method, rows in curves[figure].items()}
        document.figure(figure, plot.lines(list(grid), bands, xlabel="observed classes", ylabel=label))


def tell_exponents(document: Document, numbers: Sequence[int], ablation: list[list[dict[str, float]]]) -> None:
    """Writes the ablation of the exponent."""
    table = Table(
        ["exponent", *(Column(f"E[d^2], {m}", digits=3, best="min") for m in numbers)]
        + [Column(f"published, ImageNet, {m}", digits=2) for m in (250, 500, 750)],
        title="Exponent of the cost, by the number of observed classes",
    )
    for exponent, published in PUBLISHED_EXPONENTS.items():
        table.add(f"{exponent:g}", *(np.mean([row[str(exponent)] for row in rows]) for rows in ablation), *published)
    document.heading("Exponent")
    document.text(
        "Means over the choices of observed classes, decoded over the classes. The published figures are those of "
        "SimCLR on ImageNet: compare the shape."
    )
    document.table(table)


def tell_temperatures(document: Document, measured: dict) -> None:
    """Writes the temperatures that three criteria choose."""
    names = {"none": "none", "ece": "calibration error", "nll": "log-likelihood", "expected_cost": "E[d^2]"}
    table = Table(
        ["criterion", Column("temperature", digits=2), Column("E[d^2] on the other half", digits=3)],
        title=f"Temperature, {measured['observed']} observed classes",
    )
    for criterion, row in measured["rows"].items():
        table.add(names[criterion], row["temperature"], row["squared"])
    document.heading("Temperature")
    document.text(
        "Tuned on half of the examples. Calibration and likelihood count the examples of observed classes only."
    )
    document.table(table)
    curves = {names[c]: np.array(measured["rows"][c]["values"]) for c in CRITERIA}
    relative = {name: values / max(values.max(), np.finfo(float).tiny) for name, values in curves.items()}
    figure = plot.lines(
        np.log2(measured["grid"]), relative, xlabel="log2 of the temperature", ylabel="criterion / its largest value"
    )
    document.figure("temperature", figure)


def tell_active(document: Document, trials: list[dict[str, dict[str, list[float]]]], *, start: int, every: int) -> None:
    """Writes the growth of the locus and the fall of E[d^2] as classes are chosen."""
    document.heading("The next class to observe")
    document.text(
        f"{len(trials)} trials start from {start} random classes. Loki adds the class farthest "
        "from the locus, the set of nodes that it can predict; the baseline a random class outside of it."
    )
    shown = {"locus": (1, "nodes in the locus", 1), "squared": (every, "E[d²], Loki, any node", 2)}
    curves = {
        name: {
            rule: [
                bounds(evaluate.seed_interval(np.array([t[rule][name][i] for t in trials], float)))
                for i in range(len(trials[0][rule][name]))
            ]
            for rule in trials[0]
        }
        for name in shown
    }
    rules = list(trials[0])
    table = Table(
        ["observed", *(Column(f"{rule}, {label}", digits=d) for _, label, d in shown.values() for rule in rules)]
    )
    for i in range(len(curves["squared"][rules[0]])):
        table.add(
            start + every * i,
            *(curves["locus"][rule][every * i] for rule in rules),
            *(curves["squared"][rule][i] for rule in rules),
        )
    document.table(table)
    for name, (step, label, _) in shown.items():
        x = start + step * np.arange(len(next(iter(curves[name].values()))))
        bands = {rule: plot.Band(*np.array(rows).T) for rule, rows in curves[name].items()}
        document.figure(f"active_{name}", plot.lines(x, bands, xlabel="observed classes", ylabel=label))


def _saved(method: str, row: dict[str, dict[str, float]]) -> float:
    baseline = row["argmax"]["squared_distance"]
    return 1 - row[method]["squared_distance"] / baseline if baseline else 0.0
