"""Class hierarchies: which classes are kinds of which others.

:func:`load` reads WordNet's, a DAG of hypernyms that ends in one root; :meth:`Hierarchy.tree_edges` makes a tree of it,
as tree metrics need one. :func:`prefix_edges` reads the tree that names such as ``HUM:ind`` spell out.
"""

import collections
import dataclasses
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from zsml_jax.data.nearest_name import nearest

_SUFFIXES = ("_wordnet.json.gz", "_wordnet.json")


@dataclasses.dataclass(frozen=True, repr=False)
class Hierarchy:
    """Classes and their ancestors, keyed by WordNet id.

    Attributes:
      name: the data set whose classes these are.
      root: the id of the node above all others.
      class_ids: ids of the classes, in the order of the labels.
      class_names: a word for each class; two classes can share one.
      class_glosses: WordNet's definition of each class.
      node_names: a word for every node, by id.
      edges: ``(child, parent)`` ids; the parents of one child are in WordNet's order.
    """

    name: str
    root: str
    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    class_glosses: tuple[str, ...]
    node_names: dict[str, str]
    edges: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        counts = f"{len(self.class_ids)} classes, {len(self.node_names)} nodes, {len(self.edges)} edges"
        return f"Hierarchy({self.name!r}: {counts})"

    def tree_edges(self, *, contract: bool = False) -> tuple[tuple[str, str], ...]:
        """Returns the ``(child, parent)`` edges of the tree that keeps each node's first parent.

        Args:
          contract: drop the nodes that have one child and are neither a class nor the root, joining their two edges.
        """
        parents: dict[str, str] = {}
        for child, parent in self.edges:
            parents.setdefault(child, parent)
        kept: dict[str, str] = {}
        for node in self.class_ids:  # the ancestors of the classes only, found upwards
            while node != self.root and node not in kept:
                kept[node] = parents[node]
                node = parents[node]
        if contract:
            kept = _contracted(kept, {self.root, *self.class_ids})
        return tuple(kept.items())

    def weighted_edges(self, *, weight: float = 1.0, contract: bool = False) -> tuple[tuple[str, str, float], ...]:
        """Returns the edges of :meth:`tree_edges`, each with the same weight, as tree metrics take them."""
        return tuple((child, parent, weight) for child, parent in self.tree_edges(contract=contract))


def load(path_or_name: str | Path, *, data_dir: str | Path | None = None) -> Hierarchy:
    """Reads a hierarchy file.

    Args:
      path_or_name: the path of a ``.json`` or ``.json.gz`` file, or a name such as ``imagenet1k`` or ``cifar10``, whose
        file ``<name>_wordnet.json[.gz]`` lies in ``data_dir``.
      data_dir: where named hierarchies lie.

    Returns:
      The hierarchy.

    Raises:
      ValueError: if there is no such file, or it is not a hierarchy of one root that all classes reach.
    """
    path = _find(path_or_name, data_dir)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    if missing := [key for key in ("root", "classes", "internal_nodes", "edges") if key not in content]:
        raise ValueError(f"{path} is no hierarchy: it lacks {', '.join(missing)}")
    classes = sorted(content["classes"], key=lambda c: c["index"])
    names = [c.get("name") or c["lemma"] for c in classes]
    node_names = {wnid: node["lemma"] for wnid, node in content["internal_nodes"].items()}
    node_names |= {c["wnid"]: name for c, name in zip(classes, names, strict=True)}
    hierarchy = Hierarchy(
        name=path.name.removesuffix(_SUFFIXES[0]).removesuffix(_SUFFIXES[1]),
        root=content["root"],
        class_ids=tuple(c["wnid"] for c in classes),
        class_names=tuple(names),
        class_glosses=tuple(c["gloss"] for c in classes),
        node_names=node_names,
        edges=tuple((child, parent) for child, parent in content["edges"]),
    )
    _require_rooted(hierarchy, path)
    return hierarchy


def prefix_edges(names: Sequence[str], *, root: str, separator: str = ":") -> list[tuple[str, str]]:
    """Returns the ``(child, parent)`` edges of the tree in which each name lies below its prefixes.

    >>> prefix_edges(["HUM:ind", "HUM:gr"], root="question")
    [('HUM:ind', 'HUM'), ('HUM:gr', 'HUM'), ('HUM', 'question')]

    Args:
      names: the classes, such as TREC's fine ones.
      root: what lies above all first prefixes.
      separator: between a prefix and the rest.
    """
    level, edges = list(dict.fromkeys(names)), []
    while level:
        above = [name.rpartition(separator)[0] for name in level]
        edges += [(name, prefix or root) for name, prefix in zip(level, above, strict=True)]
        known = {child for child, _ in edges}
        level = [prefix for prefix in dict.fromkeys(above) if prefix and prefix not in known]
    return edges


def _find(path_or_name: str | Path, data_dir: str | Path | None) -> Path:
    if data_dir is None:
        path = Path(path_or_name)
        if not path.is_file():
            raise ValueError(f"there is no hierarchy file {path}; a name such as 'imagenet1k' needs data_dir")
        return path
    for suffix in _SUFFIXES:
        if (path := Path(data_dir) / f"{path_or_name}{suffix}").is_file():
            return path
    there = sorted(p.name.partition("_wordnet")[0] for s in _SUFFIXES for p in Path(data_dir).glob(f"*{s}"))
    raise ValueError(
        f"there is no hierarchy {path_or_name!r} in {data_dir}. {nearest(str(path_or_name), there, 'names')}"
    )


def _require_rooted(hierarchy: Hierarchy, path: Path) -> None:
    if len(set(hierarchy.class_ids)) != len(hierarchy.class_ids):
        raise ValueError(f"{path} lists a class id twice")
    parents = dict(hierarchy.edges)
    for start in hierarchy.class_ids:
        node, steps = start, 0
        while node != hierarchy.root:
            if node not in parents or steps > len(parents):
                raise ValueError(f"{path}: class {start} does not reach the root {hierarchy.root}; it ends at {node}")
            node, steps = parents[node], steps + 1


def _contracted(parents: dict[str, str], keep: set[str]) -> dict[str, str]:
    children = collections.Counter(parents.values())
    keep = keep | {node for node, count in children.items() if count > 1}
    contracted = {}
    for node in keep & parents.keys():
        above = parents[node]
        while above not in keep:
            above = parents[above]
        contracted[node] = above
    return {node: contracted[node] for node in parents if node in contracted}
