"""Random trees for the metric-space tests."""

import numpy as np


def random_tree(seed, n, *, reach=10**6, unit=False):
    """Edges of a tree of n nodes; a small ``reach`` makes it deep, 1 a path."""
    rng = np.random.default_rng(seed)
    length = lambda: 1.0 if unit else float(rng.uniform(0.5, 2.0))
    edges = [(i, int(rng.integers(max(0, i - reach), i)), length()) for i in range(1, n)]
    return [edges[i] for i in rng.permutation(n - 1)]


def leaves(edges):
    nodes, counts = np.unique([node for a, b, _ in edges for node in (a, b)], return_counts=True)
    return nodes[counts == 1].tolist()
