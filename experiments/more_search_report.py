"""The report of a search: the front of parameters against accuracy, all points, and how to train what was chosen."""

from typing import Any

from zsml_jax.peft import MoRe
from zsml_jax.peft.search import Entry, SearchResult
from zsml_jax.report import Column, Estimate, RunFolder, Table, plot

#: Points of the front that the plot has colours for.
_MOST = 8


def write(config: Any, folder: RunFolder, found: SearchResult, parts: Any) -> None:
    """Writes ``report.md`` and the plot."""
    document = folder.document(f"Adapters for {config.dataset} within {config.budget:,} parameters")
    document.text(
        f"{config.model} with a linear head. {len(found.entries)} points (configs with a learning rate), "
        f"{config.seeds} seeds each, were trained on {len(parts.train.labels):,} rows and judged on "
        f"{len(parts.validation.labels):,} validation rows; the test split was not loaded. Decisions came after "
        f"{' and '.join(str(rung.steps) for rung in found.rungs)} steps, and kept "
        f"{' and '.join(str(len(rung.kept) // config.seeds) for rung in found.rungs)} points. "
        f"{len(found.over_budget)} configs are over the budget and were not trained. Accuracies of the front are those "
        "of the rows that chose it, so that they lean upwards; the test of a training run does not."
    )
    document.text(f"The best is {describe(found.best)}. To train it anew and test it:")
    document.text(f"```sh\n{command(config, folder, found.best)}\n```")
    document.table(_front(found))
    shown = found.front[-_MOST:]
    points = {describe(entry): (entry.parameters, _measured(entry)) for entry in shown}
    figure = plot.scatter(points, xlabel="parameters of the adapter", ylabel="validation accuracy (%)")
    document.figure("front", figure, "The front, with t intervals over seeds")
    document.table(_points(found))
    document.write()


def describe(entry: Entry) -> str:
    """Returns an entry in words."""
    method: Any = entry.method
    sizes = f"{method.blocks} x rank {method.block_rank}" if isinstance(method, MoRe) else type(method).__name__
    return f"{sizes}, {'+'.join(method.targets)}, rate {entry.learning_rate:g}"


def command(config: Any, folder: RunFolder, entry: Entry) -> str:
    """Returns the command line of the experiment that trains and tests what was chosen."""
    options = {
        "method-file": folder.path / "best.json",
        "methods": "MoRe",
        "dataset": config.dataset,
        "model": config.model,
        "steps": entry.steps,
        "batch-size": config.batch_size,
        "length": config.length,
    }
    return "python -m experiments.more trec_coarse " + " ".join(f"--{name} {value}" for name, value in options.items())


def _measured(entry: Entry) -> tuple[float, float, float]:
    interval = entry.interval
    return entry.score, float(interval.low), float(interval.high)


def _front(found: SearchResult) -> Table:
    columns = [
        Column("config"),
        Column("parameters", digits=0),
        Column("validation accuracy, t over seeds", percent=True),
    ]
    table = Table(columns, title="The front")
    for entry in found.front:
        table.add(describe(entry), entry.parameters, Estimate(*_measured(entry)))
    return table


def _points(found: SearchResult) -> Table:
    columns = [
        Column("config"),
        Column("parameters", digits=0),
        Column("steps", digits=0),
        Column("validation accuracy", percent=True),
    ]
    table = Table(columns, title="All points, where each stopped")
    for entry in sorted(found.entries, key=lambda entry: (-entry.steps, -entry.score)):
        table.add(describe(entry), entry.parameters, entry.steps, entry.score)
    return table
