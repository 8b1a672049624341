"""The report of ``experiments.pathways``: distortion by family, drawn embeddings, and ROC curves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special

from experiments.otter import bounds
from experiments.pathways_config import Config
from zsml_jax import evaluate
from zsml_jax.curvature import ambient, embed, signature
from zsml_jax.curvature.manifold import Product
from zsml_jax.data.graphs import Graph
from zsml_jax.evaluate import ranking
from zsml_jax.report import Column, Document, RunFolder, Table, plot
from zsml_jax.report.plot_embedding import disc, sphere

#: From scores of positives and of negatives.
Measure = Callable[[np.ndarray, np.ndarray], float]
FAMILIES = ("Euclidean", "hyperbolic", "spherical", "mixed")
#: Mean distortion of the best Euclidean and product embeddings of 410 PathBank graphs, from the released tables, and
#: the mean reduction. The best product is the best of 63 signatures and all epochs, the best Euclidean of three.
PUBLISHED = {"Euclidean": 0.0589, "mixed": 0.0454, "reduction": 0.259}
#: Mean area under the ROC curve of the released result files, product GCN beside a GCN on Laplacian eigenvectors.
PUBLISHED_LINKS = {
    "HumanCyc": (0.862, 0.553, 0.742, 0.527),
    "KEGG": (0.718, 0.563, 0.705, 0.622),
    "NCI": (0.833, 0.648, 0.641, 0.562),
    "PathBank": (0.740, 0.544, 0.787, 0.588),
    "Reactome": (0.933, 0.551, 0.834, 0.810),
}


def expected_least(values: np.ndarray, budget: int) -> float:
    """Returns the expected least of ``budget`` of the values, drawn without replacement."""
    values = np.sort(values)
    n = len(values)
    budget = min(budget, n)
    ways = scipy.special.comb(n - 1 - np.arange(n), budget - 1) / scipy.special.comb(n, budget)
    return float(np.sum(ways * values))


def by_family(row: dict[str, dict[str, list[float]]]) -> dict[str, np.ndarray]:
    """Returns the distortions of all runs of each family."""
    found: dict[str, list[float]] = {family: [] for family in FAMILIES}
    for name, measured in row.items():
        if "," in name and name.replace(",", "").isdigit():
            h, e, s = (int(part) for part in name.split(","))
            found[signature.family(signature.product_of(h, e, s))].extend(measured["distortion"])
    return {family: np.array(values) for family, values in found.items()}


def tell_embeddings(
    document: Document, folder: RunFolder, config: Config, graphs: list[Graph], embedded: dict[str, Any]
) -> None:
    """Writes distortion by family at equal budgets, the best of all, and the baselines."""
    families = [by_family(embedded[graph.name]) for graph in graphs]
    budget = min(len(values) for values in families[0].values())
    sizes = [len(graph) for graph in graphs]
    document.heading("Distortion")
    document.text(
        f"{len(graphs)} graphs of {min(sizes)} to {max(sizes)} connected nodes, median {np.median(sizes):g}, drawn at "
        f"random. Every embedding has at most {config.dim} dimensions, {config.steps} updates of all pairs and learned "
        f"scales; every family has {budget} runs for each graph: of the mixed ones the expected best of {budget} drawn "
        "from all. Brackets are 95 % t intervals over graphs."
    )
    equal = {family: np.array([expected_least(row[family], budget) for row in families]) for family in FAMILIES}
    interval = lambda values: bounds(evaluate.seed_interval(values)) if len(values) > 1 else float(values[0])
    table = Table(
        [
            "family",
            Column("distortion", digits=4, best="min"),
            Column("reduction against Euclidean", percent=True),
            Column("published, PathBank", digits=4),
        ],
        title=f"Average distortion, best of {budget} runs in every family",
    )
    for family, values in equal.items():
        table.add(family, interval(values), interval(1 - values / equal["Euclidean"]), PUBLISHED.get(family))
        folder.log(
            family=family, distortion=float(values.mean()), reduction=float((1 - values / equal["Euclidean"]).mean())
        )
    document.table(table)
    unequal = np.array([row["mixed"].min() for row in families])
    flat = np.array([row["Euclidean"].min() for row in families])
    value, low, high = np.array([100 * v for v in _triple(interval(1 - unequal / flat))])
    document.text(
        f"The best mixed signature of all {len(families[0]['mixed'])} runs against the best Euclidean of "
        f"{len(families[0]['Euclidean'])}, the unequal comparison of the release, reduces distortion by {value:.1f} % "
        f"[{low:.1f}, {high:.1f}]; published {100 * PUBLISHED['reduction']:.1f} %."
    )
    others = ["suggested", "node2vec", "node2vec, no scale", "Laplacian"]
    table = Table(
        ["embedding", Column("distortion", digits=4), Column("mAP", digits=3)], title="Baselines, one run each"
    )
    for name in others:
        rows = [embedded[graph.name][name] for graph in graphs]
        table.add(
            name,
            interval(np.array([r["distortion"][0] for r in rows])),
            float(np.mean([r["precision"][0] for r in rows])),
        )
    document.table(table)
    _tell_signatures(document, graphs, embedded)
    document.text(verdict(equal))


def verdict(equal: dict[str, np.ndarray]) -> str:
    """Returns, in words, whether mixed curvature helps at an equal budget."""
    if len(equal["mixed"]) < 2:
        return "One graph: no interval, and no verdict."
    best_single = np.minimum(np.minimum(equal["hyperbolic"], equal["spherical"]), equal["Euclidean"])
    against = {"the Euclidean family": equal["Euclidean"], "the best family of one curvature": best_single}
    told = []
    for name, values in against.items():
        value, low, high = (100 * v for v in bounds(evaluate.seed_interval(1 - equal["mixed"] / values)))
        word = "lower" if low > 0 else "higher" if high < 0 else "not surely different"
        told.append(f"against {name} distortion is {word} ({value:.1f} % less, [{low:.1f}, {high:.1f}])")
    return f"Does mixed curvature help? With equal budgets, {told[0]}; {told[1]}."


def _tell_signatures(document: Document, graphs: list[Graph], embedded: dict[str, Any]) -> None:
    names = [name for name in embedded[graphs[0].name] if name.replace(",", "").isdigit()]
    means = {name: np.array([np.mean(embedded[graph.name][name]["distortion"]) for graph in graphs]) for name in names}
    order = sorted(names, key=lambda name: means[name].mean())
    table = Table(
        ["signature (h,e,s)", Column("distortion", digits=4), Column("graphs where it is best")],
        title="The ten signatures of least mean distortion, and the worst",
    )
    wins = np.array([min(names, key=lambda name, i=i: means[name][i]) for i in range(len(graphs))])
    for name in [*order[:10], order[-1]]:
        table.add(name, float(means[name].mean()), int((wins == name).sum()))
    document.table(table)
    points = {}
    for family in FAMILIES:
        mine = [n for n in order if signature.family(signature.product_of(*map(int, n.split(",")))) == family]
        points[family] = {name: float(means[name].mean()) for name in mine}
    bars = {
        family: {"best": min(v.values()), "mean": float(np.mean(list(v.values()))), "worst": max(v.values())}
        for family, v in points.items()
    }
    document.figure("signatures", plot.grouped_bars(bars, ylabel="average distortion", scale=1.0, digits=3))


def draw_embeddings(document: Document, config: Config, graph: Graph) -> None:
    """Draws one graph in the Poincaré disc and on the sphere, two dimensions each."""
    document.heading("Two dimensions")
    for name, kind, draw in (("disc", "h", disc), ("sphere", "s", sphere)):
        found = embed.fit(graph, Product([(kind, 1, 2)]), config.embedding(), key=jax.random.key(config.seed))
        x = found.points.parts[0][:, 0]
        shown = np.asarray(ambient.to_stereographic(x, np.float32(-1))) if kind == "h" else np.asarray(x)[:, [1, 2, 0]]
        caption = f"{graph.name}, {len(graph)} nodes: average distortion {float(found.distortion):.3f}"
        document.figure(name, draw(shown, graph.pairs), caption)


def tell_links(
    document: Document, folder: RunFolder, config: Config, found: dict[str, Any], refused: dict[str, int]
) -> None:
    """Writes pooled areas under ROC curves with intervals over graphs, and draws the curves."""
    document.heading("Link prediction")
    left_out = ", ".join(f"{count} {why}" for why, count in refused.items()) or "none"
    counts = {s: [len(next(iter(row.values()))["scores"][s][0]) for row in found.values()] for s in ("test", "novel")}
    document.text(
        f"{len(found)} graphs; looked at and left out: {left_out}. Features, scores and training use the training "
        "edges alone, which stay connected. Test edges are held out of the same relations; novel edges are of "
        f"{'the given file' if config.novel_file else ' and '.join(config.novel_types)} and of no training relation. "
        f"Negatives match the degrees. Positives: {sum(counts['test'])} test, {sum(counts['novel'])} novel. Each model "
        f"has {len(config.learning_rates) * len(config.dropouts)} configurations, chosen by validation loss. AUC pools "
        "the pairs of all graphs; brackets are 95 % of 1,000 resamples of graphs."
    )
    names = list(next(iter(found.values())))
    table = Table(
        ["model"]
        + [Column(f"{kind}, {split}", digits=3, best="max") for split in ("test", "novel") for kind in ("AUC", "AP")]
        + [Column("mean AUC of a graph, test", digits=3), Column("collapsed")],
        title="Edges held out, in and out of distribution",
    )
    curves: dict[str, dict[str, ranking.RocCurve]] = {"test": {}, "novel": {}}
    areas: dict[str, dict[str, Pooled]] = {"test": {}, "novel": {}}
    for name in names:
        rows = [row[name] for row in found.values()]
        cells: list[Any] = []
        for split in ("test", "novel"):
            pairs = _pairs(found, name, split)
            areas[split][name] = pooled(pairs, ranking.roc_auc, config.seed)
            cells += [areas[split][name].bounds(), pooled(pairs, ranking.average_precision, config.seed).bounds()]
            curves[split][name] = ranking.roc_curve(*(np.concatenate(side) for side in zip(*pairs, strict=True)))
            folder.log(model=name, split=split, auc=cells[-2][0], ap=cells[-1][0])
        each = np.mean([ranking.roc_auc(*map(np.array, row["scores"]["test"])) for row in rows])
        table.add(name, *cells, float(each), sum(row["collapsed"] for row in rows))
    document.table(table)
    document.text(links_verdict(areas))
    grid = np.linspace(0, 1, 101)
    for split, by_model in curves.items():
        lines = {
            name: np.interp(grid, curve.false_positive_rate, curve.true_positive_rate)
            for name, curve in by_model.items()
            if name in ("product GCN", "kappa-GCN", "GCN", "GraphSAGE", "Adamic-Adar")
        }
        figure = plot.lines(grid, lines, xlabel="false positive rate", ylabel="true positive rate")
        document.figure(f"roc_{split}", figure)
    table = Table(
        [
            "database",
            *(
                Column(label, digits=3)
                for label in ("product, val", "product, OOD", "Laplacian, val", "Laplacian, OOD")
            ),
        ],
        title="Published AUC, by other splits: the released code scrambles the order of OOD nodes",
    )
    for name, row in PUBLISHED_LINKS.items():
        table.add(name, *row)
    document.table(table)


class Pooled(NamedTuple):
    """A measure of the pairs of all graphs, and of resamples of graphs."""

    value: float
    resamples: np.ndarray

    def bounds(self) -> tuple[float, float, float]:
        """Returns the value with its 95 % interval."""
        return self.value, *interval_of(self.resamples)


def links_verdict(areas: Mapping[str, Mapping[str, Pooled]]) -> str:
    """Returns, in words, whether graph convolutions on curved products predict edges better than what is flat.

    Args:
      areas: the AUC by split, "test" or "novel", and model; the resamples of all are of the same graphs.
    """
    told = []
    for split, where in (("test", "in distribution"), ("novel", "on novel edges")):
        for curved, flat in (("product GCN", "GCN"), ("kappa-GCN", "GCN"), ("product GCN", "Adamic-Adar")):
            ours, theirs = areas[split][curved], areas[split][flat]
            low, high = interval_of(ours.resamples - theirs.resamples)
            word = "above" if low > 0 else "below" if high < 0 else "not surely different from"
            measured = f"{ours.value - theirs.value:+.3f} [{low:+.3f}, {high:+.3f}]"
            told.append(f"{where} the AUC of the {curved} is {word} that of {flat} ({measured})")
    return f"Does mixed curvature help to predict edges? {told[0][0].upper()}{told[0][1:]}; {'; '.join(told[1:])}."


def pooled(pairs: Sequence[tuple[np.ndarray, ...]], measure: Measure, seed: int) -> Pooled:
    """Returns a measure of positive and negative scores, pooled over graphs, and of 1,000 resamples of graphs."""
    of = lambda chosen: measure(*(np.concatenate(side) for side in zip(*(pairs[i] for i in chosen), strict=True)))
    rng, n = np.random.default_rng(seed), len(pairs)
    return Pooled(of(range(n)), np.array([of(rng.integers(0, n, n)) for _ in range(1000)]))


def interval_of(resamples: np.ndarray) -> tuple[float, float]:
    """Returns the ends of the 95 % percentile interval."""
    low, high = np.quantile(resamples, [0.025, 0.975])
    return float(low), float(high)


def _pairs(found: dict[str, Any], name: str, split: str) -> list[tuple[np.ndarray, ...]]:
    return [tuple(np.array(side) for side in row[name]["scores"][split]) for row in found.values()]


def _triple(value: Any) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value,) * 3
