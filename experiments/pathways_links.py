"""Link prediction on pathway graphs: which graphs take part, and what every model scores."""

import collections
import operator
from typing import Any

import jax
import numpy as np

from experiments.pathways_config import Config
from zsml_jax.curvature import baselines, decoder, embed, gcn, link_training, links, manifold, signature
from zsml_jax.curvature.gcn import GcnConfig
from zsml_jax.curvature.links import Links
from zsml_jax.data import graphs as graph_files
from zsml_jax.data.graphs import Graph

SPLITS = ("validation", "test", "novel")


def tasks(config: Config, graphs: list[Graph]) -> tuple[dict[str, Links], dict[str, int]]:
    """Returns the split edges of the first graphs, in a random order, that have enough; and why others have not.

    Raises:
      ValueError: if no graph has.
    """
    other = None if config.novel_file is None else graph_files.read_edge_list(config.novel_file)
    found: dict[str, Links] = {}
    refused: collections.Counter[str] = collections.Counter()
    for i in np.random.default_rng(config.seed).permutation(len(graphs)):
        if len(found) == config.link_graphs:
            break
        graph = graphs[i]
        novel_types = set(config.novel_types) & set(graph.types)
        kept = sorted(set(graph.types) - set(config.novel_types))
        if not kept or (other is None and not novel_types):
            refused["without novel edges"] += 1
            continue
        source = graph.of_types(novel_types) if other is None else other
        part = graph.of_types(kept).largest_component()
        if not config.smallest <= len(part) <= config.largest:
            refused["of another size"] += 1
            continue
        try:
            found[graph.name] = links.split(part, source, seed=config.seed, fewest=config.fewest)
        except ValueError:
            refused["with too few edges of a split"] += 1
    if not found:
        raise ValueError(f"no graph has enough edges for link prediction: {dict(refused)}")
    return found, dict(refused)


def compete(config: Config, task: Links) -> dict[str, Any]:
    """Trains every model on one graph, chooses its configuration by validation, and returns what it scores."""
    features, raw = node_features(config, task)
    adjacency = task.adjacency()
    scores = {
        "common neighbours": links.common_neighbours(adjacency),
        "Adamic-Adar": links.adamic_adar(adjacency),
        "degrees": links.degree_product(adjacency),
        **raw,
    }
    result: dict[str, dict[str, Any]] = {
        name: {"scores": _split_scores(matrix, task), "collapsed": False} for name, matrix in scores.items()
    }
    hyperparameters = link_training.grid(config.learning_rates, config.dropouts)
    for name, (model, columns) in contenders(config, features).items():
        data = jax.tree.map(lambda a: a[None], link_training.task(task, columns, pad_to=_padded(len(task.nodes))))
        key = jax.random.key(config.seed)
        fitted = link_training.fit_all(model, data, hyperparameters, key=key, epochs=config.epochs)
        fitted = jax.tree.map(lambda a: np.asarray(a[0]), fitted)
        best = int(np.nanargmin(fitted.validation_loss))
        chosen, chosen_numbers = jax.tree.map(operator.itemgetter(best), (fitted, hyperparameters))
        n = len(task.nodes)
        upper = chosen.logits[:n, :n][np.triu_indices(n, k=1)]
        result[name] = {
            "scores": _split_scores(chosen.logits, task),
            "collapsed": decoder.warn_if_collapsed(name, upper, chosen.params.decoder),
            "learning_rate": float(chosen_numbers.learning_rate),
            "dropout": float(chosen_numbers.dropout),
            "curvatures": gcn.kappas(model, chosen.params),
        }
    return result


def node_features(config: Config, task: Links) -> tuple[dict[str, list[np.ndarray]], dict[str, np.ndarray]]:
    """Returns features of the training graph alone, and minus the distances of its embeddings as scores."""
    graph, key = task.training_graph(), jax.random.key(config.seed)
    products = [signature.product_of(1, 1, 1, dim=config.link_dim), signature.product_of(0, 1, 0, dim=config.link_dim)]
    (row,) = embed.fit_all([graph], products, config.embedding(), key=key, pad_to=_padded(len(graph)))
    features, raw = {}, {}
    for name, found in zip(("mixed", "Euclidean"), row, strict=True):
        parts = manifold.log0(found.product, found.params, found.points)
        features[name] = [np.asarray(part[:, 0]) for part in parts]
        raw[f"distance, {name}"] = -np.asarray(found.distances())
    features["node2vec"] = [np.asarray(baselines.node2vec(graph, config.link_dim, key=key).x)]
    spectral = np.asarray(baselines.laplacian_eigenmaps(graph, config.link_dim).x)
    # Unit root mean square: eigenvectors are small, and rates are the same for all.
    features["Laplacian"] = [spectral / np.sqrt(np.mean(spectral**2) + 1e-12)]
    return features, raw


def contenders(config: Config, features: dict[str, list[np.ndarray]]) -> dict[str, tuple[GcnConfig, list[np.ndarray]]]:
    """Returns the models: static part and features; all have as many dimensions."""
    flat = ((config.link_dim, *config.hidden),)
    three = ((config.link_dim // 3, *(width // 3 for width in config.hidden)),) * 3
    return {
        "product GCN": (GcnConfig(("h", "e", "s"), three), features["mixed"]),
        "kappa-GCN": (GcnConfig(("k", "k", "k"), three, "gyromidpoint"), features["mixed"]),
        "GCN": (GcnConfig(("e",), flat), features["Euclidean"]),
        "GraphSAGE": (GcnConfig(("e",), flat, "sage"), features["Euclidean"]),
        "GCN, node2vec": (GcnConfig(("e",), flat), features["node2vec"]),
        "GCN, Laplacian": (GcnConfig(("e",), flat), features["Laplacian"]),
    }


def _split_scores(matrix: np.ndarray, task: Links) -> dict[str, list[np.ndarray]]:
    return {
        split: [np.asarray(matrix, np.float64)[pairs[:, 0], pairs[:, 1]] for pairs in getattr(task, split)]
        for split in SPLITS
        if getattr(task, split) is not None
    }


def _padded(n: int) -> int:
    return next((size for size in (64, 96, 128, 192, 256, 384) if size >= n), n)
