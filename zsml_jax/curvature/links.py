r"""Splitting the edges of a graph for link prediction, without leaks, and scores that need no training.

Pairs are those of ids, end to end. Held-out edges never disconnect the training graph, so that features can be computed
from that graph alone. Out-of-distribution edges come from another graph, of which only the edges between known nodes
that the first graph does not have are used. Negatives are no edge of either graph, no two splits share one, and they
are drawn in proportion to the product of the degrees of their ends, as edges of random graphs with these degrees are.
"""

import dataclasses

import numpy as np
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int

from zsml_jax.data.graphs import Graph

Pairs = Int[np.ndarray, "_ 2"]


@dataclasses.dataclass(frozen=True, eq=False)
class Links:
    """The edges of a graph, split; all pairs are positions in ``nodes``, the lower first.

    Attributes:
      nodes: the ids.
      train: edges to learn from; they connect what the graph connects.
      validation: edges and as many or fewer non-edges, ``(positives, negatives)``.
      test: likewise, of the same graph.
      novel: likewise, of the other graph; None without one.
      forbidden: pairs that must not serve as negatives: the edges of both graphs, ``(n, n)``.
    """

    nodes: tuple[str, ...]
    train: Pairs
    validation: tuple[Pairs, Pairs]
    test: tuple[Pairs, Pairs]
    novel: tuple[Pairs, Pairs] | None
    forbidden: Bool[np.ndarray, "n n"]

    def adjacency(self) -> Bool[np.ndarray, "n n"]:
        """Returns the adjacency of the training graph."""
        return _matrix(self.train, len(self.nodes))

    def training_graph(self, name: str = "training") -> Graph:
        """Returns the training graph, its nodes in the same order."""
        count = len(self.train)
        return Graph(name, self.nodes, self.train, ("edge",) * count, np.ones(count))


def split(
    graph: Graph,
    other: Graph | None = None,
    *,
    seed: int,
    validation: float = 0.15,
    test: float = 0.15,
    fewest: int = 20,
) -> Links:
    """Splits the edges of a graph.

    Args:
      graph: whose nodes and edges.
      other: where out-of-distribution edges come from, by ids; ids that the first graph lacks are left out.
      seed: of the split and the negatives.
      validation: share of the edges.
      test: share of the edges.
      fewest: positives of a split, at least.

    Raises:
      ValueError: if a split would have fewer positives or negatives than ``fewest``.
    """
    if not 0 < validation < 1 or not 0 < test < 1 or validation + test >= 1:
        raise ValueError(f"validation and test must be shares whose sum is below 1, got {validation} and {test}")
    rng, n, pairs = np.random.default_rng(seed), len(graph), graph.pairs
    tree = _spanning(pairs, n, rng)
    free = rng.permutation(np.flatnonzero(~tree))
    sizes = [round(share * len(pairs)) for share in (validation, test)]
    for name, size in zip(("validation", "test"), sizes, strict=True):
        if size < fewest:
            raise ValueError(f"{graph} has {size} {name} edges, fewer than {fewest}")
    if sum(sizes) > len(free):
        raise ValueError(
            f"{graph} has {len(free)} edges that can be held out without disconnecting it, not {sum(sizes)}"
        )
    held = {"validation": pairs[free[: sizes[0]]], "test": pairs[free[sizes[0] : sum(sizes)]]}
    train = pairs[np.setdiff1d(np.arange(len(pairs)), free[: sum(sizes)])]
    forbidden = graph.adjacency()
    if other is not None:
        held["novel"] = novel_pairs(graph, other)
        if len(held["novel"]) < fewest:
            raise ValueError(f"{graph} has {len(held['novel'])} novel edges in {other}, fewer than {fewest}")
        forbidden = forbidden | _matrix(held["novel"], n)
    degrees = _matrix(train, n).sum(axis=0)
    negatives = _negatives(forbidden, degrees, [len(positives) for positives in held.values()], rng)
    if min(map(len, negatives)) < fewest:
        raise ValueError(f"{graph} has too few pairs without an edge: {[len(part) for part in negatives]}")
    parts = dict(zip(held, zip(held.values(), negatives, strict=True), strict=True))
    return Links(graph.nodes, train, parts["validation"], parts["test"], parts.get("novel"), forbidden)


def novel_pairs(graph: Graph, other: Graph) -> Pairs:
    """Returns the edges of another graph between nodes of this one that are no edges of it, by ids."""
    same = other.induced(graph.nodes)
    place = {node: i for i, node in enumerate(graph.nodes)}
    order = np.array([place[node] for node in same.nodes], int)
    pairs = np.unique(np.sort(order[same.pairs], axis=1), axis=0)
    known = graph.adjacency()
    return pairs[~known[pairs[:, 0], pairs[:, 1]]]


def require_same_nodes(first: Graph, second: Graph) -> None:
    """Refuses two graphs whose nodes are not the same ids in the same order.

    Raises:
      ValueError: then; it names the first position that differs.
    """
    if first.nodes != second.nodes:
        ends = zip(first.nodes, second.nodes, strict=False)
        at = next((i for i, (a, b) in enumerate(ends) if a != b), min(len(first), len(second)))
        raise ValueError(f"graphs must have the same nodes in the same order; {first} and {second} differ at {at}")


def common_neighbours(adjacency: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Returns for each pair how many neighbours it shares."""
    links = adjacency.astype(np.float64)
    return links @ links


def adamic_adar(adjacency: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    r"""Returns :math:`\sum_{c \in N(a) \cap N(b)} 1 / \ln |N(c)|` (Adamic and Adar, 2003)."""
    links, degrees = adjacency.astype(np.float64), adjacency.sum(axis=0)
    weights = np.where(degrees > 1, 1 / np.log(np.maximum(degrees, 2)), 0.0)
    return (links * weights) @ links


def degree_product(adjacency: Bool[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Returns the product of the degrees, which the choice of negatives should make worthless."""
    degrees = adjacency.sum(axis=0).astype(np.float64)
    return np.outer(degrees, degrees)


def _matrix(pairs: np.ndarray, n: int) -> np.ndarray:
    matrix = np.zeros((n, n), bool)
    matrix[pairs[:, 0], pairs[:, 1]] = True
    return matrix | matrix.T


def _spanning(pairs: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Returns which pairs are in a random spanning forest."""
    weights = scipy.sparse.coo_array((1 + rng.random(len(pairs)), tuple(pairs.T)), shape=(n, n))
    forest = scipy.sparse.csgraph.minimum_spanning_tree(weights.tocsr()).tocoo()
    kept = set(zip(forest.row.tolist(), forest.col.tolist(), strict=True))
    return np.array([(a, b) in kept or (b, a) in kept for a, b in pairs.tolist()])


def _negatives(
    forbidden: np.ndarray, degrees: np.ndarray, sizes: list[int], rng: np.random.Generator
) -> list[np.ndarray]:
    """Draws disjoint sets of non-edges without replacement, in proportion to the product of the degrees."""
    low, high = np.nonzero(np.triu(~forbidden, k=1))
    weights = np.log(np.maximum(degrees[low] * degrees[high], 1e-9))
    order = np.argsort(-(weights + rng.gumbel(size=len(low))))
    wanted = sum(sizes)
    shares = sizes if wanted <= len(low) else [size * len(low) // wanted for size in sizes]
    drawn = rng.permutation(order[: sum(shares)])
    cuts = np.split(drawn, np.cumsum(shares)[:-1])
    return [np.stack([low[part], high[part]], axis=1) for part in cuts]
