r"""Distances in a weighted tree, and Frechet means on it without a matrix.

Write :math:`F(v) = \sum_i w_i d(v, \lambda_i)^2`. Two facts make trees fast.

*Rerooting.* With the weight :math:`W_u` below the edge of length :math:`\ell_u` above u, the first moment
:math:`M(v) = \sum_i w_i d(v, \lambda_i)` and F change along that edge by amounts that only need sums over the subtree
of u. Subtree sums are differences of a running sum in preorder, and sums along the path to the root are differences of
a running sum over the Euler tour, so that all F cost a few cumulative sums, whatever the depth of the tree.

*Convexity.* F is strictly convex along every path, so that it has one minimum on the tree seen as a continuum, inside
the hull of the observed classes, and the best node is an end of the edge that holds it. If all nodes are classes it is
enough to look at the observed nodes and their branchings: at most 2m - 1 nodes, whatever the size of the tree.
"""

import functools
from collections.abc import Hashable, Iterable, Sequence
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot.class_ids import ClassIds
from zsml_jax.zeroshot.metric_base import Metric, is_traced

_BLOCK_ENTRIES = 2**22  # of a block of examples x nodes


class TreeMetric(Metric):
    """The path metric of a weighted tree whose nodes are classes.

    Attributes:
      height: the distance of each node from the root, in preorder, ``(v,)``.
      end: the preorder position after the last node of each subtree, ``(v,)``.
      parent: the preorder position of each node's parent; the root is its own, ``(v,)``.
      position: the preorder position of each class, ``(k,)``.
      all_nodes: whether every node is a class.
    """

    _arrays = ("height", "end", "parent", "position", "_range_minimum")
    _static = ("all_nodes",)

    def __init__(self, edges: Sequence[tuple[Hashable, Hashable, float]], classes: Iterable[Hashable] | None = None):
        """Builds the tree.

        Args:
          edges: ``(id, id, length)`` of each edge, in either direction, with positive lengths.
          classes: the nodes that may be predicted, in their order; by default all, as the edges name them.

        Raises:
          ValueError: if the edges do not form one tree, a length is not positive and finite, or a class is no node.
        """
        if not edges:
            raise ValueError("edges must not be empty")
        nodes = ClassIds(dict.fromkeys(node for a, b, _ in edges for node in (a, b)))
        a, b = (nodes.indices([edge[i] for edge in edges], "edges") for i in (0, 1))
        lengths = np.array([length for *_, length in edges], np.float64)
        if not ((lengths > 0) & np.isfinite(lengths)).all():
            bad = edges[int(np.argmin((lengths > 0) & np.isfinite(lengths)))]
            raise ValueError(f"edges must have positive finite lengths, got {bad}")
        if (a == b).any():
            raise ValueError(f"edges must join different nodes, got {edges[int(np.argmax(a == b))]}")
        v = len(nodes)
        graph = scipy.sparse.coo_array((lengths, (a, b)), shape=(v, v)).tocsr()
        # Not depth_first_order, which takes time quadratic in the degree of a node (29 s for a star of 325,056).
        order, parent_id = scipy.sparse.csgraph.breadth_first_order(graph, 0, directed=False)
        if len(order) != v:
            missing = nodes.ids[int(np.setdiff1d(np.arange(v), order)[0])]
            raise ValueError(f"edges must form one tree, but {missing!r} is not connected to {nodes.ids[0]!r}")
        if len(edges) != v - 1:
            raise ValueError(f"edges must form a tree: {v} nodes need {v - 1} edges, got {len(edges)}")

        place, self.end = _preorder(order, parent_id)
        parent = np.zeros(v, np.int32)
        parent[place[order[1:]]] = place[parent_id[order[1:]]]
        above = np.zeros(v)
        above[np.maximum(place[a], place[b])] = lengths  # the child of an edge is the later of its ends
        self.height = _heights(parent, above)
        self.parent = parent
        self.all_nodes = classes is None
        self.class_ids = nodes if classes is None else ClassIds(classes)
        self.position = place[nodes.indices(self.class_ids.ids, "classes")]
        self._range_minimum = _sparse_table(self.height[parent])

    @classmethod
    def from_hierarchy(
        cls, edges: Iterable[tuple[Hashable, Hashable]], classes: Iterable[Hashable] | None = None
    ) -> "TreeMetric":
        """Returns the metric of ``(child, parent)`` edges of unit length."""
        return cls([(child, parent, 1.0) for child, parent in edges], classes)

    @property
    def diameter(self) -> float:
        """The largest distance of two classes: that from the class farthest from any class."""
        first = jnp.zeros((), jnp.int32)
        everyone = np.arange(len(self.class_ids), dtype=np.int32)
        farthest = jnp.argmax(self.distances(first, everyone))
        return float(jnp.max(self.distances(farthest, everyone)))

    def _distances(self, a: AnyArray, b: AnyArray) -> Array:
        height, position = jnp.asarray(self.height), jnp.asarray(self.position)
        i, j = position[a], position[b]
        top = height[self._lowest_common_ancestor(i, j)]
        return (height[i] - top) + (height[j] - top)

    def frechet_mean(
        self, probs: Float[AnyArray, "n m"], observed: Int[AnyArray, " m"], exponent: float
    ) -> Int[Array, " n"]:
        """Returns the class index of least expected cost of each row.

        Ties within rounding go to the first class.
        Exponents other than 1 and 2 compare all classes with all observed ones.
        """
        probs = jnp.asarray(probs)
        if exponent == 2 and self.all_nodes and not is_traced(observed, self.height):
            hull = _hull(self, np.asarray(observed))
            return _mean_in_hull(hull, self._class_of(), probs)
        if exponent in (1, 2):
            return _mean_by_rerooting(self, probs, jnp.asarray(observed), int(exponent))
        return super().frechet_mean(probs, observed, exponent)

    @functools.partial(jax.jit, static_argnames="exponent")
    def expected_powers(
        self, probs: Float[AnyArray, "n m"], observed: Int[AnyArray, " m"], exponent: int
    ) -> Float[Array, "n k"]:
        """Returns the expected distance (exponent 1) or squared distance (2) of every class, by rerooting.

        Args:
          probs: non-negative weights of the observed classes, ``(n, m)``.
          observed: their class indices, ``(m,)``.
          exponent: 1 or 2.

        Returns:
          ``(n, k)``, in time and memory proportional to n times the number of nodes.
        """
        reroot = functools.partial(_moments, self, observed=jnp.asarray(observed))
        return jax.vmap(reroot)(jnp.asarray(probs))[exponent - 1][:, self.position]

    def steiner_tree(self, observed: Int[np.ndarray, " m"]) -> Int[np.ndarray, " s"]:
        """Returns the nodes on the paths between observed classes, as class indices; needs ``all_nodes``."""
        return self._class_of()[np.unique(_hull(self, observed).path_node)]

    def leaves(self) -> Int[np.ndarray, " c"]:
        """Returns the class indices of the nodes of degree one, in order; needs ``all_nodes``."""
        degree = np.bincount(np.asarray(self.parent)[1:], minlength=len(self.parent)) + 1
        degree[0] -= 1
        return np.sort(self._class_of()[degree == 1])

    def distances_to_set(self, inside: Int[np.ndarray, " s"]) -> Float[np.ndarray, " k"]:
        """Returns the distance of each class to the nearest of some classes, in time proportional to the tree."""
        height, parent = np.asarray(self.height), np.asarray(self.parent)
        nearest = np.full(len(parent), np.inf)
        nearest[np.asarray(self.position)[inside]] = 0.0
        for i in range(len(parent) - 1, 0, -1):
            nearest[parent[i]] = min(nearest[parent[i]], nearest[i] + height[i] - height[parent[i]])
        for i in range(1, len(parent)):
            nearest[i] = min(nearest[i], nearest[parent[i]] + height[i] - height[parent[i]])
        return nearest[np.asarray(self.position)]

    def _class_of(self) -> np.ndarray:
        class_of = np.full(len(self.parent), -1, np.int32)
        class_of[np.asarray(self.position)] = np.arange(len(self.position), dtype=np.int32)
        return class_of

    def _lowest_common_ancestor(self, i: AnyArray, j: AnyArray, xp: ModuleType = jnp) -> AnyArray:
        """Returns the preorder position of the lowest common ancestor of nodes in preorder positions.

        Among the nodes after the first, up to the second, the one whose parent is highest hangs off the ancestor.
        """
        table, parent = xp.asarray(self._range_minimum), xp.asarray(self.parent)
        height = xp.asarray(self.height)[parent]
        low, high = xp.minimum(i, j), xp.maximum(i, j)
        level = xp.frexp(xp.maximum(high - low, 1).astype(np.float32))[1] - 1
        left, right = table[level, xp.minimum(low + 1, len(parent) - 1)], table[level, high - (1 << level) + 1]
        return xp.where(low == high, low, parent[xp.where(height[left] <= height[right], left, right)])


def _preorder(order: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the preorder position of each node, and, by position, the end of its subtree; parents come first."""
    above, size = parent.tolist(), [1] * len(order)
    for node in order[:0:-1].tolist():
        size[above[node]] += size[node]
    place, free = [0] * len(order), [1] * len(order)
    for node in order[1:].tolist():
        place[node] = free[above[node]]
        free[above[node]] += size[node]
        free[node] = place[node] + 1
    end = np.empty(len(order), np.int32)
    end[place] = np.array(place) + np.array(size)
    return np.array(place, np.int32), end


def _heights(parent: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Returns the distance of each node from the root, in preorder, given the lengths of the edges above."""
    height = above.tolist()
    for node, up in enumerate(parent.tolist()[1:], start=1):
        height[node] += height[up]
    return np.array(height)


def _sparse_table(values: np.ndarray) -> np.ndarray:
    """Returns, for each power of two, where the least of so many values from each place on is, ``(levels, v)``."""
    table = [np.arange(len(values), dtype=np.int32)]
    for level in range(max(1, len(values)).bit_length() - 1):
        last = table[-1]
        later = np.concatenate([last[1 << level :], np.repeat(last[-1:], min(1 << level, len(last)))])
        table.append(np.where(values[last] <= values[later], last, later))
    return np.stack(table)


class _Hull(NamedTuple):
    """The observed nodes and their branchings, in preorder, with the nodes on the edges between them.

    The edge above hull node c is c's; the root of the hull has an edge of length zero.
    """

    height: np.ndarray  # (c,) from the tree's root
    end: np.ndarray  # (c,) after the last hull node of the subtree
    parent: np.ndarray  # (c,)
    observed: np.ndarray  # (m,) the hull node of each observed class
    path_start: np.ndarray  # (c,) where the nodes on the edge begin, from the parent down to the node
    path_end: np.ndarray  # (c,) one after where they end
    path_node: np.ndarray  # (p,) preorder positions in the tree
    path_height: np.ndarray  # (p,)


def _hull(tree: TreeMetric, observed: np.ndarray) -> _Hull:
    position, parent = np.asarray(tree.position), np.asarray(tree.parent)
    height = np.asarray(tree.height)
    nodes = np.unique(position[observed])
    branchings = tree._lowest_common_ancestor(nodes[:-1], nodes[1:], np)
    nodes = np.unique(np.concatenate([nodes, branchings]))
    ends = np.asarray(tree.end)[nodes]

    above = np.zeros(len(nodes), np.int32)
    stack: list[int] = []
    for c, node in enumerate(nodes):
        while stack and ends[stack[-1]] <= node:
            stack.pop()
        above[c] = stack[-1] if stack else c
        stack.append(c)

    starts, path = [], []
    for c, node in enumerate(nodes):
        climb = [node]
        while climb[-1] != nodes[above[c]]:
            climb.append(parent[climb[-1]])
        starts.append(len(path))
        path.extend(reversed(climb))
    path_node = np.array(path, np.int32)
    return _Hull(
        height=height[nodes],
        end=np.searchsorted(nodes, ends).astype(np.int32),
        parent=above,
        observed=np.searchsorted(nodes, position[observed]).astype(np.int32),
        path_start=np.array(starts, np.int32),
        path_end=np.array([*starts[1:], len(path)], np.int32),
        path_node=path_node,
        path_height=height[path_node],
    )


class _EdgeSums(NamedTuple):
    below: Array  # (v,) weight of the subtree
    reach: Array  # (v,) weighted distance of the subtree's weight from the parent
    first: Array  # (v,) sum_i w_i d(v, i)
    second: Array  # (v,) sum_i w_i d(v, i)^2


def _reroot(height: Array, end: Array, parent: Array, weight: Array) -> _EdgeSums:
    """Sums over all nodes of one weighted tree in preorder; ``weight`` is ``(v,)``."""
    # Heights are taken from their mean, so that differences of running sums lose as little as possible.
    total = weight.sum()
    centred = height - jnp.sum(weight * height) / jnp.where(total > 0, total, 1)
    below = _subtree_sums(weight, end)
    lifted = _subtree_sums(weight * centred, end)
    reach = lifted - below * centred[parent]
    length = height - height[parent]
    from_root = height - height[0]
    first = jnp.sum(weight * from_root) + _path_sums(length * (total - 2 * below), end)
    change = length**2 * total + 2 * length * (first[parent] - 2 * reach)
    second = jnp.sum(weight * from_root**2) + _path_sums(change, end)
    return _EdgeSums(below, reach, first, second)


def _subtree_sums(values: Array, end: Array) -> Array:
    running = jnp.concatenate([jnp.zeros(1, values.dtype), jnp.cumsum(values)])
    return running[end] - running[:-1]


def _path_sums(values: Array, end: Array) -> Array:
    """Returns the sum of the values of a node and its ancestors: a value counts from its node to its subtree's end."""
    leaving = jnp.zeros(values.shape[0] + 1, values.dtype).at[end].add(values)
    return jnp.cumsum(values - leaving[:-1])


def _moments(tree: TreeMetric, probs: Array, *, observed: Array) -> tuple[Array, Array]:
    height = jnp.asarray(tree.height, probs.dtype)
    weight = jnp.zeros(height.shape[0], probs.dtype).at[jnp.asarray(tree.position)[observed]].add(probs)
    sums = _reroot(height, jnp.asarray(tree.end), jnp.asarray(tree.parent), weight)
    return sums.first, sums.second


@functools.partial(jax.jit, static_argnames="exponent")
def _mean_by_rerooting(tree: TreeMetric, probs: Array, observed: Array, exponent: int) -> Array:
    position = jnp.asarray(tree.position)

    def decode(row: Array) -> Array:
        cost = _moments(tree, row, observed=observed)[exponent - 1][position]
        return _first_least(cost, jnp.arange(cost.shape[0], dtype=jnp.int32))

    batch = max(1, _BLOCK_ENTRIES // tree.height.shape[0])
    return jax.lax.map(decode, probs, batch_size=batch)


def _first_least(cost: Array, index: Array) -> Array:
    """Returns the smallest index whose cost is least up to rounding."""
    least = cost.min()
    slack = 32 * jnp.finfo(cost.dtype).eps * jnp.abs(cost).max()
    return jnp.min(jnp.where(cost <= least + slack, index, jnp.iinfo(index.dtype).max))


@jax.jit
def _mean_in_hull(hull: _Hull, class_of: Array, probs: Array) -> Array:
    height = jnp.asarray(hull.height, probs.dtype)
    path_height = jnp.asarray(hull.path_height, probs.dtype)
    start, end, parent = jnp.asarray(hull.path_start), jnp.asarray(hull.path_end), jnp.asarray(hull.parent)
    length = height - height[parent]
    steps = int(hull.path_node.shape[0]).bit_length()

    hull_nodes = jnp.arange(height.shape[0])
    rounding = 8 * jnp.finfo(probs.dtype).eps * height.max()

    def decode(row: Array) -> Array:
        weight = jnp.zeros(height.shape[0], probs.dtype).at[hull.observed].add(row)
        sums = _reroot(height, jnp.asarray(hull.end), parent, weight)
        # Along the edge above c, t from its parent, F'(t) / 2 = first - 2 reach + t total. The mean is found by the
        # sign of the slope, not by comparing costs, whose differences float32 cannot tell in deep trees.
        optimum = (2 * sums.reach - sums.first[parent]) / weight.sum()
        deepest = jnp.max(jnp.where(optimum >= length, hull_nodes, 0))  # those above the mean lie on one path
        below = jnp.where((parent == deepest) & (hull_nodes > 0), optimum, 0.0)
        c = jnp.argmax(below)
        t = below[c]
        offset = path_height - height[deepest]

        def halve(_: Array | int, span: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = span  # the mean lies at or after low, and before high + 1
            middle = (low + high + 1) // 2
            after = offset[middle] <= t
            return jnp.where(after, middle, low), jnp.where(after, high, middle - 1)

        low, _ = jax.lax.fori_loop(0, steps, halve, (start[c], end[c] - 1))
        near = jnp.stack([low, jnp.minimum(low + 1, end[c] - 1)])
        near = jnp.where(t > 0, near, end[deepest] - 1)
        gap = jnp.abs(offset[near] - t)
        classes = jnp.asarray(class_of)[jnp.asarray(hull.path_node)[near]]
        return jnp.min(jnp.where(gap <= gap.min() + rounding, classes, jnp.iinfo(classes.dtype).max))

    batch = max(1, _BLOCK_ENTRIES // max(hull.height.shape[0], hull.path_node.shape[0]))
    return jax.lax.map(decode, probs, batch_size=batch)
