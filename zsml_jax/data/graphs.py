"""Graphs keyed by stable ids, and their readers: Pathway Commons SIF and ``.hgnc.txt``, edge lists, GMT and NetworkX.

A :class:`Graph` keeps nodes by id and edges by the positions of their ends, so that two graphs are compared by ids and
never by an order of appearance. Distances and neighbours are those of the undirected graph; directions are kept in
``edges``. Self loops are left out, and so are repeats of an edge of the same type.
"""

import dataclasses
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from jaxtyping import Bool, Float, Int

from zsml_jax.data.nearest_name import nearest

_HGNC_COLUMNS = ("PARTICIPANT_A", "INTERACTION_TYPE", "PARTICIPANT_B", "PATHWAY_NAMES")


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Graph:
    """A graph with typed edges; make one with :func:`from_edges`.

    Attributes:
      name: what it is called.
      nodes: the ids of the nodes, each once.
      edges: positions of the two ends in ``nodes``, ``(m, 2)``.
      types: the type of each edge.
      weights: the length of each edge, ``(m,)``; all are one by default.
    """

    name: str
    nodes: tuple[str, ...]
    edges: Int[np.ndarray, "m 2"]
    types: tuple[str, ...]
    weights: Float[np.ndarray, " m"]

    def __repr__(self) -> str:
        return f"Graph({self.name!r}: {len(self.nodes)} nodes, {len(self.edges)} edges)"

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def pairs(self) -> Int[np.ndarray, "p 2"]:
        """The undirected edges without their types, each once, the lower position first, in order."""
        return np.unique(np.sort(self.edges, axis=1), axis=0)

    def adjacency(self) -> Bool[np.ndarray, "n n"]:
        """Returns which nodes are neighbours, whatever the direction."""
        matrix = np.zeros((len(self), len(self)), bool)
        matrix[self.edges[:, 0], self.edges[:, 1]] = True
        return matrix | matrix.T

    def sparse(self) -> scipy.sparse.csr_array:
        """Returns the symmetric matrix of lengths, the least where a pair has several edges."""
        low, high = np.sort(self.edges, axis=1).T
        order = np.lexsort((self.weights, high, low))
        low, high, lengths = low[order], high[order], self.weights[order]
        first = np.r_[True, (np.diff(low) != 0) | (np.diff(high) != 0)] if len(low) else np.zeros(0, bool)
        upper = scipy.sparse.coo_array((lengths[first], (low[first], high[first])), shape=(len(self),) * 2)
        return (upper + upper.T).tocsr()

    def distances(self, sources: Int[np.ndarray, " s"] | None = None) -> Float[np.ndarray, "s n"]:
        """Returns the lengths of the shortest paths from some nodes (by default all), infinite where there is none."""
        return scipy.sparse.csgraph.dijkstra(self.sparse(), directed=False, indices=sources)

    def components(self) -> Int[np.ndarray, " n"]:
        """Returns the number of the connected component of each node."""
        return scipy.sparse.csgraph.connected_components(self.sparse(), directed=False)[1]

    def largest_component(self) -> "Graph":
        """Returns the component with the most nodes, the first of those."""
        label = self.components()
        return self.take(np.flatnonzero(label == np.bincount(label).argmax())) if len(label) else self

    def take(self, positions: Int[np.ndarray, " k"]) -> "Graph":
        """Returns the graph induced on some nodes, in this order."""
        place = np.full(len(self), -1)
        place[positions] = np.arange(len(positions))
        kept = np.flatnonzero((place[self.edges] >= 0).all(axis=1))
        return Graph(
            self.name,
            tuple(self.nodes[i] for i in positions),
            place[self.edges[kept]],
            tuple(self.types[i] for i in kept),
            self.weights[kept],
        )

    def induced(self, ids: Iterable[str], name: str = "") -> "Graph":
        """Returns the graph on those of the ids that it has, in their order; unknown ids are left out."""
        place = {node: i for i, node in enumerate(self.nodes)}
        known = [place[node] for node in dict.fromkeys(ids) if node in place]
        return dataclasses.replace(self.take(np.array(known, int)), name=name or self.name)

    def of_types(self, types: Iterable[str]) -> "Graph":
        """Returns the graph with the edges of some types only; all nodes stay.

        Raises:
          ValueError: if it has no edge of a type.
        """
        wanted = set(types)
        if unknown := sorted(wanted - set(self.types)):
            raise ValueError(f"types must be of this graph. {nearest(unknown[0], sorted(set(self.types)), 'types')}")
        kept = [i for i, kind in enumerate(self.types) if kind in wanted]
        return dataclasses.replace(
            self, edges=self.edges[kept], types=tuple(self.types[i] for i in kept), weights=self.weights[kept]
        )

    def by_type(self) -> "dict[str, Graph]":
        """Returns the graph of each type of edge, named after it; all nodes stay."""
        return {
            kind: dataclasses.replace(self.of_types([kind]), name=f"{self.name} {kind}")
            for kind in sorted(set(self.types))
        }


def from_edges(
    edges: Sequence[Sequence[Any]],
    *,
    nodes: Iterable[str] | None = None,
    types: Sequence[str] | None = None,
    weights: Sequence[float] | Float[np.ndarray, " m"] | None = None,
    name: str = "graph",
) -> Graph:
    """Returns the graph of pairs of ids.

    >>> graph = from_edges([("a", "b"), ("b", "c"), ("c", "c"), ("b", "a"), ("a", "b")])
    >>> graph, graph.pairs.tolist()
    (Graph('graph': 3 nodes, 3 edges), [[0, 1], [1, 2]])

    Args:
      edges: pairs of ids; self loops and repeats of a type are left out.
      nodes: all ids, for those without an edge and for their order; by default those of the edges, sorted.
      types: the type of each edge.
      weights: the length of each edge, positive and finite.
      name: of the graph.

    Raises:
      ValueError: if an edge names an unknown id, an id is there twice, or a weight is not positive and finite.
    """
    pairs = [(str(a), str(b)) for a, b in edges]
    ids = sorted({node for pair in pairs for node in pair}) if nodes is None else [str(node) for node in nodes]
    place = {node: i for i, node in enumerate(ids)}
    if len(place) != len(ids):
        twice = next(node for i, node in enumerate(ids) if place[node] != i)
        raise ValueError(f"nodes must be different, got {twice!r} twice")
    for pair in pairs:
        if unknown := [node for node in pair if node not in place]:
            raise ValueError(f"edges must join known nodes, got {pair}. {nearest(unknown[0], place, 'nodes')}")
    kinds = ["edge"] * len(pairs) if types is None else list(types)
    lengths = np.ones(len(pairs)) if weights is None else np.asarray(weights, np.float64)
    if not len(pairs) == len(kinds) == len(lengths):
        raise ValueError(f"types and weights must be one for each of {len(pairs)} edges")
    if not (good := np.isfinite(lengths) & (lengths > 0)).all():
        bad = int(np.argmin(good))
        raise ValueError(f"weights must be positive and finite, got {lengths[bad]} for {pairs[bad]}")
    kept: dict[tuple[str, str, str], int] = {}
    for i, ((a, b), kind) in enumerate(zip(pairs, kinds, strict=True)):
        if a != b:
            kept.setdefault((a, b, kind), i)
    chosen = list(kept.values())
    positions = np.array([[place[a], place[b]] for a, b, _ in kept], int).reshape(-1, 2)
    return Graph(name, tuple(ids), positions, tuple(kinds[i] for i in chosen), lengths[chosen])


def read_sif(path: str | Path, *, name: str = "") -> Graph:
    """Reads a SIF file, plain or ``.gz``: lines of ``source type target [target ...]``; a lone id is a node.

    Raises:
      ValueError: if a line has two fields; it tells the line.
    """
    edges, types, nodes = [], [], {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\n").split("\t") if "\t" in line else line.split()
            if len(fields) == 2:
                raise ValueError(f"{path}, line {number}: a SIF line is 'source type target', got {line.rstrip()!r}")
            nodes.update(dict.fromkeys(fields[:1] + fields[2:]))
            edges.extend((fields[0], target) for target in fields[2:])
            types.extend(fields[1:2] * len(fields[2:]))
    return from_edges(edges, nodes=nodes, types=types, name=name or Path(path).name)


def read_hgnc(path: str | Path) -> dict[str, Graph]:
    """Reads the pathways of a Pathway Commons ``.hgnc.txt``: typed edges with the names of the pathways they are in.

    Participants that are chemicals (``CHEBI:...``) are kept. The table of participants behind the empty line is not
    read.

    Raises:
      ValueError: if a column is missing.
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    with open_text(path) as file:
        header = file.readline().rstrip("\n").split("\t")
        if missing := [column for column in _HGNC_COLUMNS if column not in header]:
            raise ValueError(f"{path} is no .hgnc.txt of Pathway Commons: it lacks {', '.join(missing)}")
        a, kind, b, names = (header.index(column) for column in _HGNC_COLUMNS)
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) <= names:
                break
            for pathway in filter(None, (part.strip() for part in fields[names].split(";"))):
                found.setdefault(pathway, []).append((fields[a], fields[kind], fields[b]))
    return {
        pathway: from_edges([(a, b) for a, _, b in rows], types=[kind for _, kind, _ in rows], name=pathway)
        for pathway, rows in found.items()
    }


def read_edge_list(path: str | Path, *, delimiter: str | None = None, name: str = "") -> Graph:
    """Reads lines of two ids and, if there is one, a length; lines that begin with ``#`` are comments.

    Raises:
      ValueError: if a line has another number of fields, or its length is no number; it tells the line.
    """
    edges, weights = [], []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.strip().split(delimiter)
            try:
                a, b, weight = (*fields, "1") if len(fields) == 2 else fields
                weights.append(float(weight))
            except ValueError:
                raise ValueError(f"{path}, line {number}: expected two ids and a length, got {fields}") from None
            edges.append((a, b))
    return from_edges(edges, weights=weights, name=name or Path(path).name)


def read_gmt(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Reads gene sets: lines of ``name, description, gene, gene, ...`` between tabs.

    Raises:
      ValueError: if a line has no gene, or a name is there twice.
    """
    sets: dict[str, tuple[str, ...]] = {}
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            name, *rest = line.rstrip("\n").split("\t")
            if len(rest) < 2:
                raise ValueError(f"{path}, line {number}: a GMT line is a name, a description and genes, got {line!r}")
            if name in sets:
                raise ValueError(f"{path}, line {number}: the set {name!r} is there twice")
            sets[name] = tuple(gene for gene in rest[1:] if gene)
    return sets


def from_networkx(graph: Any, *, weight: str | None = None, kind: str = "type", name: str = "") -> Graph:
    """Returns the graph of a NetworkX one, of any class.

    Args:
      graph: with ``nodes`` and ``edges(data=True)``.
      weight: the attribute of an edge that holds its length; all are one by default.
      kind: the attribute of an edge that holds its type.
      name: of the graph; by default its own.

    Raises:
      ValueError: if an edge has no such length; or as :func:`from_edges`.
    """
    rows: list[tuple[Any, Any, Mapping[str, Any]]] = list(graph.edges(data=True))
    if weight is not None and (bad := next(((a, b) for a, b, data in rows if weight not in data), None)):
        raise ValueError(f"weight must be an attribute of every edge; {bad} has no {weight!r}")
    return from_edges(
        [(a, b) for a, b, _ in rows],
        nodes=[str(node) for node in graph.nodes],
        types=[str(data.get(kind, "edge")) for *_, data in rows],
        weights=None if weight is None else [float(data[weight]) for *_, data in rows],
        name=name or graph.name or "graph",
    )


def open_text(path: str | Path) -> io.TextIOWrapper:
    """Opens a text file, unpacking it where its name ends in ``.gz``."""
    path = Path(path)
    return cast(io.TextIOWrapper, (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8"))
