"""What the AutoWS benchmark tells: its tables, performance profiles and critical differences."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.otter import share_bounds
from zsml_jax.report import Column, Document, RunFolder, Table, plot, rank_plot
from zsml_jax.weaksup import comparison

_FIGURES = Path(__file__).parent.parent / "configs" / "autows" / "figures.json"
#: Of a cell: data set, features, method and seed.
Results = Mapping[tuple[str, str, str, int], Mapping[str, float | None]]
_MEASURED = {"accuracy": "on covered", "coverage": "coverage", "adjusted": "adjusted", "end_model": "end model"}


def write(folder: RunFolder, results: Results, *, seeds: int, labels: int) -> None:
    """Writes the report."""
    published = json.loads(_FIGURES.read_text(encoding="utf-8"))
    document = folder.document("AutoWS-Bench-101")
    document.text(
        f"{labels} labelled training examples, drawn {seeds} times; brackets are 95 % t intervals over the draws. "
        "Accuracy counts the test examples that a method labels, coverage is their share, and the adjusted accuracy "
        "counts all, the others as the most frequent class; a draw that labels nothing has no accuracy. The end model "
        "is a softmax regression on the posterior of the training examples. Published figures are single runs with the "
        "first 100 validation labels."
    )
    means = {}
    for dataset in dict.fromkeys(cell[0] for cell in results):
        columns = [Column(name, percent=True) for name in _MEASURED.values()]
        columns += [Column("published", percent=True), Column("published coverage", percent=True)]
        table = Table(["features", "method", *columns], title=dataset)
        for kind, method in dict.fromkeys(cell[1:3] for cell in results if cell[0] == dataset):
            rows = [results[dataset, kind, method, seed] for seed in range(seeds)]
            shown = {name: _interval([row[name] for row in rows]) for name in _MEASURED}
            known = published.get(dataset, {}).get(kind, {}).get(method, {})
            beside = [known[name] / 100 if name in known else None for name in ("accuracy", "coverage")]
            table.add(kind, method, *shown.values(), *beside)
            measured: dict[str, Any] = {name: value and value[0] for name, value in shown.items()}
            folder.log(dataset=dataset, features=kind, method=method, **measured)
            means[dataset, kind, method] = float(np.mean([row["adjusted"] or 0.0 for row in rows]))
        document.heading(dataset)
        document.table(table)
    _compare(document, means)
    document.write()


def _compare(document: Document, means: Mapping[tuple[str, str, str], float]) -> None:
    """Profiles and ranks by adjusted accuracy, over data sets and features, of the methods that ran on all of them."""
    problems = list(dict.fromkeys((d, f) for d, f, _ in means))
    everywhere = {m: all((*problem, m) in means for problem in problems) for *_, m in means}
    methods = [method for method, ran in everywhere.items() if ran]
    partial = [method for method, ran in everywhere.items() if not ran]
    if len(methods) < 2 or len(problems) < 2:
        return
    scores = np.array([[means[d, f, method] for d, f in problems] for method in methods])
    document.heading("All problems")
    taus = np.geomspace(1, 8, 25)
    shares = comparison.profiles(np.maximum(1 - scores, 1e-3), taus)
    curves = {method: 100 * share for method, share in zip(methods, shares, strict=True)}
    figure = plot.lines(
        taus, curves, xlabel="factor of the best method's error", ylabel="problems within it (%)", log_x=True
    )
    document.figure("profiles", figure, "Dolan and Moré's profiles of the error, abstentions adjusted.")
    ranks = comparison.compare_ranks(scores)
    named = {method: float(rank) for method, rank in zip(methods, ranks.mean_ranks, strict=True)}
    groups = [[methods[i] for i in group] for group in ranks.groups]
    diagram = rank_plot.critical_difference(named, groups, ranks.critical_difference)
    document.figure("ranks", diagram, "Mean ranks; a bar joins methods that Nemenyi's test does not tell apart.")
    document.text(
        f"Friedman's test that all methods are alike has p = {ranks.p_value:.2g} over {len(problems)} problems. Data "
        "sets with several features, and permuted beside plain MNIST, are not independent."
        + (f" Left out, since they do not run on every problem: {', '.join(partial)}." if partial else "")
    )


def _interval(values: list[float | None]) -> Any:
    given = [value for value in values if value is not None]
    return share_bounds(given) if len(given) > 1 else None
