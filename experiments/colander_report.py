"""What the Colander experiment tells: coverage and error of every cell, and whether Colander beats the softmax."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.colander_config import Cells, UnitBall
from experiments.colander_problems import Problem
from experiments.colander_simulation import RULES, violations
from experiments.otter import share_bounds
from zsml_jax.report import Column, Document, RunFolder, Table, plot

#: The paper's table 2: error and coverage in percent, mean of 5 runs, from code that read the true labels.
PUBLISHED = {
    "mnist": {
        "cross_entropy": {
            "Softmax": (4.1, 85.0),
            "TS": (7.8, 94.2),
            "Dirichlet": (7.9, 93.2),
            "SB": (6.7, 92.6),
            "Top-HB": (7.4, 93.1),
            "AdaTS": (7.5, 92.8),
            "Colander": (4.2, 95.6),
        },
        "crl": {
            "Softmax": (4.7, 86.0),
            "TS": (8.0, 94.8),
            "Dirichlet": (8.6, 93.1),
            "SB": (7.4, 93.1),
            "Top-HB": (7.7, 94.1),
            "AdaTS": (7.8, 94.3),
            "Colander": (4.5, 95.6),
        },
        "fmfp": {
            "Softmax": (4.8, 84.2),
            "TS": (8.0, 95.3),
            "Dirichlet": (8.2, 94.0),
            "SB": (7.2, 93.1),
            "Top-HB": (7.1, 93.3),
            "AdaTS": (7.6, 94.1),
            "Colander": (4.6, 95.7),
        },
        "squentropy": {
            "Softmax": (3.7, 88.2),
            "TS": (6.2, 95.6),
            "Dirichlet": (6.5, 95.9),
            "SB": (6.0, 95.3),
            "Top-HB": (5.3, 96.4),
            "AdaTS": (6.6, 95.7),
            "Colander": (4.1, 97.2),
        },
    },
    "cifar10": {
        "cross_entropy": {
            "Softmax": (4.8, 14.0),
            "TS": (7.3, 23.2),
            "Dirichlet": (7.7, 22.4),
            "SB": (6.1, 18.6),
            "Top-HB": (6.0, 15.6),
            "AdaTS": (8.6, 16.9),
            "Colander": (3.0, 78.5),
        },
        "crl": {
            "Softmax": (5.2, 15.9),
            "TS": (6.8, 20.3),
            "Dirichlet": (7.7, 20.9),
            "SB": (5.9, 17.9),
            "Top-HB": (4.4, 12.3),
            "AdaTS": (8.8, 17.1),
            "Colander": (2.2, 77.9),
        },
        "fmfp": {
            "Softmax": (4.9, 15.6),
            "TS": (6.5, 21.0),
            "Dirichlet": (6.9, 21.7),
            "SB": (6.1, 19.5),
            "Top-HB": (5.2, 14.2),
            "AdaTS": (7.2, 27.5),
            "Colander": (3.0, 77.4),
        },
        "squentropy": {
            "Softmax": (5.2, 21.2),
            "TS": (6.9, 28.2),
            "Dirichlet": (7.3, 29.4),
            "SB": (6.2, 23.8),
            "Top-HB": (4.3, 15.8),
            "AdaTS": (7.6, 22.6),
            "Colander": (2.3, 79.0),
        },
    },
}
#: The notebooks of TBAL (2023), epsilon .01: error and coverage in percent by labelled points, with 500 queries, where
#: AL+SC has coverage only; and by queries, with 4,000 labelled points.
PUBLISHED_BALL = {
    "TBAL": {
        100: (3.10, 71.43),
        400: (1.65, 93.27),
        800: (1.08, 96.01),
        1200: (0.78, 96.82),
        1600: (0.65, 96.93),
        2000: (0.54, 97.23),
    },
    "AL+SC": {
        100: (None, 96.95),
        400: (None, 96.91),
        800: (None, 96.31),
        1200: (None, 95.96),
        1600: (None, 95.70),
        2000: (None, 96.36),
    },
}
PUBLISHED_BALL_BY_BUDGET = {
    "TBAL": {
        100: (0.78, 71.40),
        200: (0.49, 95.28),
        400: (0.40, 97.63),
        600: (0.34, 97.36),
        800: (0.28, 97.10),
        1000: (0.25, 96.90),
    },
    "AL+SC": {100: (0.29, 19.31), 200: (0.16, 59.41), 400: (0.15, 92.06)},
}

#: For each seed, the figures of a run.
Runs = Sequence[Mapping[str, float]]


def tell_cells(
    config: Cells,
    folder: RunFolder,
    problem: Problem,
    cells: Mapping[tuple[str, str], Sequence[Runs]],
    knowing: Mapping[str, Sequence[Runs]],
    others: Mapping[str, Sequence[Runs]],
) -> None:
    """Writes the report of a data set."""
    document = folder.document(f"Auto-labelling {config.dataset}")
    main = config.errors.index(config.main_error)
    document.text(
        f"{len(problem.labels):,} points, {problem.n_classes} classes. {sum(config.roles)} labelled points have roles "
        f"(checkpoint, calibration, thresholds, audit: {', '.join(map(str, config.roles))}"
        f"{', reused as in the paper' if config.reuse else ', disjoint'}); {config.budget} more are asked for. "
        f"Thresholds are {config.method}{', one for all classes' if config.shared else ''}, epsilon is "
        f"{config.main_error:g}. Brackets are 95 % t intervals over {config.seeds} independent seeds. A "
        "violation is a run whose auto-labels err more often than epsilon."
    )
    columns = [Column("coverage", percent=True), Column("error", percent=True, digits=2)]
    columns += [Column("violations", percent=True, digits=0)]
    published = PUBLISHED.get(config.published, {})
    beside = [Column(f"published {name}", percent=True) for name in ("coverage", "error") if published]

    def told(objective: str, name: str) -> tuple[Any, ...]:
        if not published:
            return ()
        error, coverage = published.get(objective, {}).get(name.removesuffix(" (paper)"), (None, None))
        return _share(coverage), _share(error)

    table = Table(["training", "confidence", *columns, *beside], title=f"Every cell at epsilon {config.main_error:g}")
    for (objective, name), runs in cells.items():
        table.add(objective, name, *_row(runs[main], config.main_error), *told(objective, name))
        folder.log(objective=objective, confidence=name, **_mean(runs[main]))
    for objective, runs in knowing.items():
        row = _row(runs[main], config.main_error)
        table.add(objective, "true correctness", *row, *told(objective, "true correctness"))
    document.table(table)
    table = Table(["method", *columns], title=f"Other ways to spend the labels, {config.objectives[0]}, softmax")
    table.add("TBAL", *_row(cells[config.objectives[0], config.post_hoc[0]][main], config.main_error))
    for name, runs in others.items():
        table.add(name, *_row(runs[main], config.main_error))
    document.table(table)
    _tell_verdict(document, config, cells)
    _tell_alarm(document, config, cells, knowing)
    _tell_violations(document, config, cells)
    _tell_simulations(document, config, problem.n_classes)
    _plot(document, config, cells)
    document.write()


def tell_unit_ball(
    config: UnitBall,
    folder: RunFolder,
    by_labelled: Mapping[int, Mapping[str, Runs]],
    by_budget: Mapping[int, Mapping[str, Runs]],
) -> None:
    """Writes the report of the unit ball."""
    document = folder.document("Auto-labelling in the unit ball")
    document.text(
        f"{config.n:,} points in {config.dimension} dimensions, epsilon {config.error:g}, thresholds by the paper's "
        f"rule with C = {config.deviations:g} and more than {config.min_count} points. 95 % t intervals over "
        f"{config.seeds} draws of points and plane. The published columns come from the authors' notebooks; they fit a "
        "linear support vector machine, here it is logistic regression."
    )
    for by, rows, published, fixed in (
        ("labelled points", by_labelled, PUBLISHED_BALL, f"{config.budget} queries"),
        ("queries", by_budget, PUBLISHED_BALL_BY_BUDGET, f"{config.many:,} labelled points"),
    ):
        for name in ("TBAL", "AL+SC"):
            table = Table(
                [
                    Column(by, digits=0),
                    *(Column("coverage", percent=True), Column("error", percent=True, digits=2)),
                    Column("violations", percent=True, digits=0),
                    Column("published coverage", percent=True, digits=2),
                    Column("published error", percent=True, digits=2),
                ],
                title=f"{name} with {fixed}",
            )
            for number, runs in rows.items():
                error, coverage = published[name].get(number, (None, None))
                table.add(number, *_row(runs[name], config.error), _share(coverage), _share(error))
                folder.log(method=name, **{by: number}, **_mean(runs[name]))
            document.table(table)
        measured = {
            name: plot.Band(*(100 * np.array([_interval(runs[name], "error") for runs in rows.values()]).T))
            for name in ("TBAL", "AL+SC")
        }
        errors = np.array([published["TBAL"].get(number, (np.nan,))[0] for number in rows], float)
        figure = plot.lines(list(rows), {**measured, "TBAL, published": errors}, xlabel=by, ylabel="error (%)")
        caption = f"Error of auto-labels with {fixed}; epsilon is {100 * config.error:g} %"
        document.figure(f"error_by_{by.replace(' ', '_')}", figure, caption)
    document.write()


def _tell_verdict(document: Document, config: Cells, cells: Mapping[tuple[str, str], Sequence[Runs]]) -> None:
    """Says of each Colander whether it covers more than the softmax, paired by seed."""
    contenders = [name for name in config.post_hoc if name.startswith("Colander")]
    if "Softmax" not in config.post_hoc or not contenders:
        return
    main = config.errors.index(config.main_error)
    columns = [Column("coverage gained", percent=True), Column("error added", percent=True, digits=2), "more coverage"]
    table = Table(["training", "confidence", *columns], title="Colander less the softmax, paired by seed")
    better = 0
    for objective in config.objectives:
        for name in contenders:
            ours, theirs = cells[objective, name][main], cells[objective, "Softmax"][main]
            gained = [_difference(ours, theirs, field) for field in ("coverage", "error")]
            wins, loses = gained[0][1] > 0, gained[0][2] < 0
            better += wins
            table.add(objective, name, *gained, "yes" if wins else "less" if loses else "cannot be told")
    document.heading("Does Colander beat the softmax once no label leaks?")
    document.table(table)
    document.text(
        f"It covers more, with an interval above zero, in {better} of {len(config.objectives) * len(contenders)} "
        "comparisons; intervals are not corrected for their number. Published figures come from code that read the "
        "true labels at inference (docs/methods/colander.md), and are no measure of the method."
    )


def _tell_alarm(
    document: Document,
    config: Cells,
    cells: Mapping[tuple[str, str], Sequence[Runs]],
    knowing: Mapping[str, Sequence[Runs]],
) -> None:
    """Names cells that label more points rightly, paired by seed, than a score that knows which ones are right."""
    main = config.errors.index(config.main_error)
    rightly = lambda runs: np.array([run["coverage"] * (1 - run["error"]) for run in runs])
    alarms = []
    for (objective, name), runs in cells.items():
        gained = rightly(runs[main]) - rightly(knowing[objective][main])
        _, low, _ = share_bounds(gained.tolist(), least=-1.0)
        if low > 0:
            alarms.append(f"{name} with {objective}")
    document.text(
        f"Leak alarm: paired by seed, {', '.join(alarms)} labels more points rightly than a score that knows them. "
        "Either labels leak, or most points are labelled later, by a better classifier."
        if alarms
        else "No leak alarm: paired by seed, nothing labels more points rightly than a score that knows them."
    )


def _tell_violations(document: Document, config: Cells, cells: Mapping[tuple[str, str], Sequence[Runs]]) -> None:
    table = Table(
        ["epsilon", Column("runs", digits=0), Column("violations", percent=True), Column("coverage", percent=True)],
        title=f"All cells together, thresholds {config.method}",
    )
    for e, error in enumerate(config.errors):
        runs = [run for measured in cells.values() for run in measured[e]]
        over = float(np.mean([run["error"] > error for run in runs]))
        table.add(f"{error:g}", len(runs), over, float(np.mean([run["coverage"] for run in runs])))
    document.table(table)


def _tell_simulations(document: Document, config: Cells, n_classes: int) -> None:
    """Tells how often each rule of thresholds breaks its promise where the error above a score is known."""
    n, key = config.roles[2], jax.random.key(config.seed)
    table = Table(
        ["thresholds", Column("violations", percent=True), Column("coverage", percent=True)],
        title=f"{config.simulations} simulated rounds at epsilon {config.main_error:g}",
    )
    for rule in RULES:
        found = violations(
            rule, n=n, n_classes=n_classes, error=config.main_error, failure=config.failure,
            min_count=config.min_count, simulations=config.simulations, key=key,
        )  # fmt: skip
        table.add(rule, found["violations"], found["coverage"])
    document.table(table)
    document.text(
        f"{n} labelled points of {n_classes} classes with uniform scores s; a prediction is wrong with probability "
        f"{1 - 1 / n_classes:.2g} (1 - s)^2. Certified thresholds allow themselves {100 * config.failure:g} % of "
        "violations; the other rules allow nothing and promise nothing."
    )


def _plot(document: Document, config: Cells, cells: Mapping[tuple[str, str], Sequence[Runs]]) -> None:
    objective = config.objectives[0]
    measured = [name for name in config.post_hoc if (objective, name) in cells]
    shown = measured[:8]
    of = objective if shown == measured else f"{objective}, the first eight confidence functions"
    main = config.errors.index(config.main_error)
    curves = {
        field: {
            name: plot.Band(*(100 * np.array([_interval(runs, field) for runs in cells[objective, name]]).T))
            for name in shown
        }
        for field in ("coverage", "error")
    }
    points = {
        name: (curves["coverage"][name].value[main], tuple(part[main] for part in curves["error"][name]))
        for name in shown
    }
    figure = plot.scatter(points, xlabel="coverage (%)", ylabel="error (%)", scale=1.0, log_x=False)
    document.figure("cells", figure, f"Error against coverage at epsilon {config.main_error:g}, {of}")
    if len(config.errors) == 1:
        return
    paths = {name: (curves["coverage"][name].value, curves["error"][name].value) for name in shown}
    figure = plot.paths(paths, xlabel="coverage (%)", ylabel="error (%)")
    told = ", ".join(f"{error:g}" for error in config.errors)
    document.figure("error_by_coverage", figure, f"Error against coverage at epsilon {told}, {of}")
    for field, bands in curves.items():
        figure = plot.lines(config.errors, bands, xlabel="epsilon", ylabel=f"{field} (%)", log_x=True)
        document.figure(f"{field}_by_epsilon", figure, f"{field.capitalize()} of auto-labels, {of}")


def _row(runs: Runs, error: float) -> tuple[Any, Any, float]:
    over = float(np.mean([run["error"] > error for run in runs]))
    return _interval(runs, "coverage"), _interval(runs, "error"), over


def _interval(runs: Runs, field: str) -> tuple[float, float, float]:
    return share_bounds([run[field] for run in runs])


def _difference(ours: Runs, theirs: Runs, field: str) -> tuple[float, float, float]:
    return share_bounds([a[field] - b[field] for a, b in zip(ours, theirs, strict=True)], least=-1.0)


def _mean(runs: Runs) -> dict[str, Any]:
    return {field: float(np.mean([run[field] for run in runs])) for field in runs[0]}


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
