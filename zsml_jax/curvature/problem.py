"""What an embedding has to meet: the distances and edges of graphs, padded to one size, and its measures."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.curvature import distortion
from zsml_jax.data.graphs import Graph
from zsml_jax.typing import Array


class Problem(NamedTuple):
    """Graphs padded to one size.

    Attributes:
      distances: of the graphs, 1 where there is no pair, ``(g, n, n)``.
      pairs: which are pairs of different nodes, ``(g, n, n)``.
      neighbours: which are edges, ``(g, n, n)``.
    """

    distances: Float[Array, "*g n n"]
    pairs: Bool[Array, "*g n n"]
    neighbours: Bool[Array, "*g n n"]


class Scores(NamedTuple):
    """What is measured of an embedding."""

    distortion: Array
    worst_case_distortion: Array
    mean_average_precision: Array


def prepare(graphs: Sequence[Graph], pad_to: int | None = None) -> Problem:
    """Returns the distances of graphs, padded to the largest, or to ``pad_to`` nodes.

    Raises:
      ValueError: if one has fewer than two nodes or is not connected, or has more than ``pad_to``.
    """
    size = max(map(len, graphs)) if pad_to is None else pad_to
    if size < max(map(len, graphs)):
        raise ValueError(f"pad_to must be at least the {max(map(len, graphs))} nodes of the largest graph, got {size}")
    distances = np.ones((len(graphs), size, size), np.float32)
    pairs, neighbours = np.zeros(distances.shape, bool), np.zeros(distances.shape, bool)
    for i, graph in enumerate(graphs):
        n = len(graph)
        if n < 2:
            raise ValueError(f"graph must have at least 2 nodes, {graph} has {n}")
        between = graph.distances()
        if not np.isfinite(between).all():
            count = graph.components().max() + 1
            raise ValueError(f"graph must be connected, {graph} has {count} components: embed its largest_component()")
        np.fill_diagonal(between, 1)
        distances[i, :n, :n] = between
        pairs[i, :n, :n] = ~np.eye(n, dtype=bool)
        neighbours[i, :n, :n] = graph.adjacency()
    return Problem(jnp.asarray(distances), jnp.asarray(pairs), jnp.asarray(neighbours))


def score(found: Float[Array, "n n"], problem: Problem) -> Scores:
    """Measures the distances of an embedding against those of the graph."""
    return Scores(
        distortion.average_distortion(found, problem.distances, problem.pairs),
        distortion.worst_case_distortion(found, problem.distances, problem.pairs),
        distortion.mean_average_precision(found, problem.neighbours, problem.pairs),
    )
