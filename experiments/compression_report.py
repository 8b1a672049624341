"""Reports of the compression experiment: knowledge against compression, and the paper's findings as numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.compression_config import Pretrained, Synthetic
from experiments.compression_findings import findings
from experiments.compression_points import Point, combined_points, head_points, scheme_points
from experiments.compression_subject import Subject
from experiments.otter import bounds
from zsml_jax import compression, evaluate
from zsml_jax.evaluate.fact_ranks import FactRanks, RelationAverage
from zsml_jax.report import Column, Estimate, RunFolder, Table, plot
from zsml_jax.report.document import Document

#: Results by the name of their point.
Results = Mapping[str, Mapping[str, Any]]


class Judge:
    """Turns results into figures with intervals.

    Args:
      subject: the facts and texts.
    """

    def __init__(self, subject: Subject):
        self._names = tuple(sorted({fact.relation for fact in subject.facts}))
        self._relations = np.array([self._names.index(fact.relation) for fact in subject.facts])
        tokenizer = subject.pretrained.tokenizer
        assert tokenizer is not None, "facts were read with it"
        self._num_tokens = {
            name: sum(len(tokenizer.encode_plain(text)) for text in texts) for name, texts in subject.texts.items()
        }

    def ranks(self, result: Mapping[str, Any]) -> FactRanks:
        """Returns the ranks with their relations."""
        ranks = np.asarray(result["ranks"])
        return FactRanks(ranks, self._relations, self._names, np.arange(len(ranks)), ("",) * len(ranks))

    def precision(
        self, result: Mapping[str, Any], k: int | None = 1, average: RelationAverage = "micro"
    ) -> tuple[float, float, float]:
        """Returns precision at k, or the mean reciprocal rank, with its interval."""
        return bounds(self.ranks(result).interval(k, average=average, key=jax.random.key(0)))

    def perplexities(self, result: Mapping[str, Any]) -> dict[str, float]:
        """Returns the perplexity of each set of texts."""
        return {name: float(np.exp(np.sum(nats) / self._num_tokens[name])) for name, nats in result["nats"].items()}

    def row(self, result: Mapping[str, Any]) -> list[Any]:
        """Returns the cells of a table: precision at 1, macro, at 10, reciprocal rank, and perplexities."""
        cells: list[Any] = [
            Estimate(*self.precision(result)),
            Estimate(*self.precision(result, average="macro")),
            self.ranks(result).precision_at(10),
            self.ranks(result).mean_reciprocal_rank(),
        ]
        return [*cells, *self.perplexities(result).values()]

    def columns(self) -> list[Any]:
        """Returns the columns of :meth:`row`."""
        measures = [Column(name, percent=True) for name in ("P@1", "P@1 macro", "P@10", "MRR")]
        return [*measures, *(Column(f"perplexity, {name}", digits=2) for name in self._num_tokens)]


def write(
    config: Pretrained | Synthetic,
    folder: RunFolder,
    subject: Subject,
    results: Results,
    budgets: Mapping[float, Sequence[Point]],
    recovered: Mapping[tuple[str, float], Mapping[str, Any]],
) -> None:
    """Writes the report."""
    judge = Judge(subject)
    what = config.model if isinstance(config, Pretrained) else "a small transformer that learned made-up facts"
    document = folder.document(f"The cost of compression: {what}")
    relations = len({fact.relation for fact in subject.facts})
    document.text(
        f"{len(subject.facts):,} facts of {relations} relations. An answer is one token; its rank is among all "
        f"{subject.pretrained.config.vocab_size:,} tokens of the model. Intervals are 95 % bootstrap intervals over "
        "facts. Percentages of sparsity are of the group's own weights; equal budgets are further down."
    )
    _findings(document, config, results)
    dense = Table(["model", *judge.columns()], title="Before compression")
    dense.add("dense", *judge.row(results["dense"]))
    document.table(dense)
    _pruning(document, config, judge, results)
    _budgets(document, config, judge, subject, results, budgets)
    _rounded(document, judge, results, "Quantised", scheme_points(config))
    _rounded(document, judge, results, "Pruned by magnitude, then quantised dynamically", combined_points(config))
    _final_layer(document, config, judge, results)
    _recovery(document, config, judge, results, recovered)
    seconds = [result["seconds"] for result in results.values() if "seconds" in result]
    document.text(
        f"Time of each of the {len(seconds)} points, medians on this machine as busy as it was: "
        f"{np.median([s['compress'] for s in seconds]):.1f} s to compress, "
        f"{np.median([s['measure'] for s in seconds]):.1f} s to measure."
    )
    document.write()


def _findings(document: Document, config: Pretrained | Synthetic, results: Results) -> None:
    table = Table(["the paper's finding", "number", Column("points", digits=1), "verdict"], title="Findings")
    for finding in findings(config, results):
        table.add(finding.claim, finding.measure, Estimate(*(100 * part for part in finding.value)), finding.verdict)
    document.table(table)
    document.text(
        "In points of precision at 1; positive numbers are for the finding. It is confirmed or refuted where the "
        "interval, over facts that all points share, leaves out zero. Pruning is by magnitude, one threshold for the "
        "group, and quantisation dynamic int8, as in the paper; this is one model, the paper has several."
    )


def _pruning(document: Document, config: Pretrained | Synthetic, judge: Judge, results: Results) -> None:
    document.heading("Pruned")
    x = [0.0, *(100 * s for s in config.sparsities)]
    for method in config.prunings:
        curves = {g: _band(judge, results, [Point(g, method, s) for s in config.sparsities]) for g in config.groups}
        figure = plot.lines(x, curves, xlabel="sparsity of the group (%)", ylabel="precision at 1 (%)")
        document.figure(f"pruned_{method}", figure, f"Knowledge against sparsity by group, {method}, with intervals")
    for group in config.groups:
        curves: dict[str, plot.Band] = {
            m: _band(judge, results, [Point(group, m, s) for s in config.sparsities]) for m in config.prunings
        }
        figure = plot.lines(x, curves, xlabel=f"sparsity of {group} (%)", ylabel="precision at 1 (%)")
        document.figure(f"methods_{group}", figure, f"Knowledge against sparsity by method, {group}")
    table = Table(["method", "group", "sparsity", *judge.columns()], title="Pruned")
    for method in config.prunings:
        for group in config.groups:
            for sparsity in config.sparsities:
                found = results[Point(group, method, sparsity).name]
                table.add(method, group, f"{100 * sparsity:g} %", *judge.row(found))
    document.table(table)


def _band(judge: Judge, results: Results, points: Sequence[Point]) -> plot.Band:
    measured = [judge.precision(results[name]) for name in ("dense", *(point.name for point in points))]
    return plot.Band(*(100 * np.array(measured).T))


def _budgets(
    document: Document,
    config: Pretrained | Synthetic,
    judge: Judge,
    subject: Subject,
    results: Results,
    budgets: Mapping[float, Sequence[Point]],
) -> None:
    groups = compression.groups(subject.pretrained)
    table = Table(
        ["weights removed", "group", "of its weights", *judge.columns()],
        title="Pruned by magnitude, the same number of weights of every group",
    )
    for points in budgets.values():
        for point in points:
            size = compression.weights(subject.pretrained.params, groups[point.group])
            removed = f"{point.sparsity * size:,.0f}"
            table.add(removed, point.group, f"{100 * point.sparsity:.1f} %", *judge.row(results[point.name]))
    if budgets:
        document.table(table)


def _rounded(document: Document, judge: Judge, results: Results, title: str, points: Sequence[Point]) -> None:
    table = Table(
        ["how", "group", "sparsity", Column("stored (MB)", digits=2, best="min"), *judge.columns()], title=title
    )
    for point in points:
        found = results[point.name]
        sparsity = f"{100 * point.sparsity:g} %" if point.pruning else "none"
        table.add(point.scheme, point.group, sparsity, found["stored_bytes"] / 1e6, *judge.row(found))
    if points:
        document.table(table)
        document.text("What is stored is the whole model with its scales; a zero takes as much room as anything else.")


def _final_layer(document: Document, config: Pretrained | Synthetic, judge: Judge, results: Results) -> None:
    if not config.head_sparsities:
        return
    document.heading("The final layer alone")
    table = Table(["removed", "by", "sparsity", Column("answers lost", percent=True), *judge.columns()])
    curves: dict[str, list[float]] = {}
    for point in head_points(config):
        found = results[point.name]
        what = "words" if point.within == "rows" else "weights"
        table.add(what, point.pruning, f"{100 * point.sparsity:g} %", found["lost"], *judge.row(found))
        curves.setdefault(f"{what} by {point.pruning}", []).append(100 * judge.precision(found)[0])
    x = [100 * s for s in config.head_sparsities]
    figure = plot.lines(x, curves, xlabel="sparsity of the final layer (%)", ylabel="precision at 1 (%)")
    document.figure("final_layer", figure, "The final layer pruned by weights or by whole words")
    document.table(table)
    document.text(
        "A word whose weights are all removed scores zero whatever comes before it. An answer that is lost so is no "
        "longer known by construction, and this part of the damage says nothing of where knowledge is kept."
    )


def _recovery(
    document: Document,
    config: Pretrained | Synthetic,
    judge: Judge,
    results: Results,
    recovered: Mapping[tuple[str, float], Mapping[str, Any]],
) -> None:
    document.heading(f"Recovery at {100 * config.recovered_sparsity:g} % sparsity")
    table = Table(["model", "rate", *judge.columns()], title=f"{config.recovery_steps} steps")
    table.add("dense", "", *judge.row(results["dense"]))
    half = results[Point("all", "magnitude", config.recovered_sparsity).name]
    table.add("pruned by magnitude", "", *judge.row(half))
    before = (np.asarray(half["ranks"]) == 1).astype(np.float32)
    gains = {}
    for method in dict.fromkeys(name for name, _ in recovered):
        rate = min(config.learning_rates, key=lambda rate: recovered[method, rate]["validation"])
        found = recovered[method, rate]
        table.add(f"{method}, adapter beside", f"{rate:g}", *judge.row(found["beside"]))
        table.add(f"{method}, merged into what was kept", f"{rate:g}", *judge.row(found["merged"]))
        after = (np.asarray(found["merged"]["ranks"]) == 1).astype(np.float32)
        interval = evaluate.bootstrap_interval(jax.numpy.mean, after - before, key=jax.random.key(0))
        gains[method] = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * part for part in bounds(interval)))
    document.table(table)
    told = "; ".join(f"{method} {gain}" for method, gain in gains.items())
    document.text(
        "MoRe and LoRA have the same number of parameters, and each the rate of the grid with the better validation "
        f"texts. Points of precision at 1 gained by the merged model, as sparse as before: {told}."
    )
