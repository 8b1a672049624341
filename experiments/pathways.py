"""Do mixed-curvature spaces hold biological pathway graphs better than flat ones, and do they predict their edges?

    python -m experiments.pathways sample --graphs-file pathways.json.gz

First, a stated sample of graphs is embedded under every signature of up to three hyperbolic, Euclidean and spherical
factors, and distortion is compared by family at equal numbers of dimensions and of runs. Then edges are held out, and
graph convolutions on products compete with flat ones and with scores that need no training, in distribution and on
edges of a kind that no model has seen. Every graph is a part of its own: a run that is killed goes on at the next.
"""

import functools
import math

import jax
import numpy as np

from experiments import pathways_links, pathways_report, runner
from experiments.pathways_config import Config, check
from zsml_jax.curvature import baselines, embed, problem, signature
from zsml_jax.data import pathways
from zsml_jax.data.graphs import Graph
from zsml_jax.report import RunFolder


def run(config: Config, folder: RunFolder) -> None:
    """Embeds and predicts what is not in the folder yet, and reports."""
    with runner.refusals():
        check(config)
        graphs = load(config)
        chosen = sample(config, graphs)
    embedded = {
        graph.name: folder.cached(f"embed {graph.name}", functools.partial(embed_graph, config, graph))
        for graph in chosen
    }
    document = folder.document(f"Mixed curvature on {config.dataset}")
    pathways_report.tell_embeddings(document, folder, config, chosen, embedded)
    pathways_report.draw_embeddings(document, config, chosen[len(chosen) // 2])
    if config.link_graphs:
        with runner.refusals():
            tasks, refused = pathways_links.tasks(config, graphs)
        found = {
            name: folder.cached(f"links {name}", functools.partial(pathways_links.compete, config, links))
            for name, links in tasks.items()
        }
        pathways_report.tell_links(document, folder, config, found, refused)
    document.write()


def load(config: Config) -> list[Graph]:
    """Returns all graphs of the data set."""
    if config.dataset == "pathways":
        return pathways.load(config.graphs_file)
    # As a whole Nations is complete, and in UMLS no two concepts are more than two steps apart.
    return list(pathways.knowledge_graph(config.dataset).by_type().values())


def sample(config: Config, graphs: list[Graph]) -> list[Graph]:
    """Returns the largest components of graphs drawn at random, by size.

    Complete graphs are left out: every space of enough dimensions holds them without distortion.

    Raises:
      ValueError: if no graph has a component of a size that was asked for.
    """
    parts = [graph.largest_component() for graph in graphs]
    fitting = [
        graph
        for graph in parts
        if config.smallest <= len(graph) <= config.largest and len(graph.pairs) < math.comb(len(graph), 2)
    ]
    if not fitting:
        raise ValueError(f"no graph has from {config.smallest} to {config.largest} connected nodes and is not complete")
    drawn = np.random.default_rng(config.seed).permutation(len(fitting))[: config.graphs]
    return sorted((fitting[i] for i in drawn), key=lambda graph: (len(graph), graph.name))


def embed_graph(config: Config, graph: Graph) -> dict[str, dict[str, list[float]]]:
    """Embeds a graph under every signature and by the baselines; returns distortions and the like, by restart."""
    signatures = signature.all_signatures(most=config.most, dim=config.dim)
    found: dict[str, dict[str, list[float]]] = {}
    for restart in range(config.restarts):
        key = jax.random.fold_in(jax.random.key(config.seed), restart)
        (row,) = embed.fit_all([graph], signatures, config.embedding(), key=key, pad_to=padded(len(graph)))
        for product, result in zip(signatures, row, strict=True):
            name = ",".join(map(str, signature.counts(product)))
            _add(found, name, result, float(result.converged))
        walked = baselines.node2vec(graph, config.dim, key=key)
        _add(found, "node2vec", walked.scores, 1.0)
        _add(found, "node2vec, no scale", walked.unscaled, 1.0)
    spectral = baselines.laplacian_eigenmaps(graph, config.dim)
    _add(found, "Laplacian", spectral.scores, 1.0)
    whole = problem.prepare([graph])
    suggested = signature.suggest(
        whole.distances[0] * whole.pairs[0],
        whole.neighbours[0],
        key=jax.random.key(config.seed),
        factors=config.most,
        dim=config.dim,
    )
    found["suggested"] = dict(found[",".join(map(str, signature.counts(suggested)))])
    return found


def padded(n: int) -> int:
    """Returns the size of the bucket of a graph: few sizes, so that few programs are compiled."""
    return next(size for size in (16, 32, 64, 96, 128, 192, 256, 384) if size >= n) if n <= 384 else n


def _add(found: dict, name: str, result: embed.Embedding | problem.Scores, converged: float) -> None:
    row = found.setdefault(name, {"distortion": [], "worst": [], "precision": [], "converged": []})
    row["distortion"].append(float(result.distortion))
    row["worst"].append(float(result.worst_case_distortion))
    row["precision"].append(float(result.mean_average_precision))
    row["converged"].append(converged)


if __name__ == "__main__":
    runner.main(run, "pathways")
