"""Graphs whose curvature is known."""

from zsml_jax.data import graphs
from zsml_jax.data.graphs import Graph


def tree(depth: int) -> Graph:
    """A binary tree."""
    return graphs.from_edges([(str(i), str((i - 1) // 2)) for i in range(1, 2 ** (depth + 1) - 1)], name="tree")


def cycle(n: int) -> Graph:
    return graphs.from_edges([(str(i), str((i + 1) % n)) for i in range(n)], name="cycle")


def line(n: int) -> Graph:
    return graphs.from_edges([(f"{i:03}", f"{i + 1:03}") for i in range(n - 1)], name="line")


def grid(side: int) -> Graph:
    cells = [(i, j) for i in range(side) for j in range(side)]
    steps = [((i, j), (i + di, j + dj)) for i, j in cells for di, dj in ((0, 1), (1, 0))]
    return graphs.from_edges([(str(a), str(b)) for a, b in steps if max(b) < side], name="grid")
