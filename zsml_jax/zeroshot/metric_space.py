"""Metric spaces over classes, keyed by class id.

A metric knows its ``classes`` in their order, the distance of any two, and the class of least expected cost, which is
the weighted Frechet mean that :mod:`.loki` decodes to. :class:`TreeMetric` never builds a matrix over its nodes,
:class:`EuclideanMetric` and :class:`MatrixMetric` go through blocks of classes with a running minimum, and
:class:`CompleteMetric` is a plain argmax. :func:`graph_metric` and :func:`grid_metric` make matrices of shortest paths.

Distances without class ids are refused: the released ImageNet experiment of Loki's paper multiplied probabilities in
one class order by distances in another, and the best figure of its notebook is that of a scrambled metric.
"""

import itertools
from collections.abc import Hashable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot.class_ids import ClassIds
from zsml_jax.zeroshot.metric_base import Metric, argmin_by_blocks, as_float, is_traced
from zsml_jax.zeroshot.tree_metric import TreeMetric

__all__ = ["CompleteMetric", "EuclideanMetric", "MatrixMetric", "Metric", "TreeMetric", "graph_metric", "grid_metric"]


class MatrixMetric(Metric):
    """A metric given by all its distances."""

    _arrays = ("matrix",)

    def __init__(self, distances: Float[AnyArray, "k k"], classes: Iterable[Hashable]):
        """Checks and keeps a distance matrix.

        Args:
          distances: ``(k, k)``, symmetric, zero on the diagonal, positive elsewhere. The triangle inequality is not
            required: see :meth:`triangle_violation`.
          classes: the id of each row, k of them.

        Raises:
          ValueError: if the matrix is no distance matrix, or does not fit the ids.
        """
        self.class_ids = ClassIds(classes)
        self.matrix = as_float(distances)
        k = len(self.class_ids)
        if self.matrix.shape != (k, k):
            raise ValueError(f"distances must be ({k}, {k}), one row for each class id, got {self.matrix.shape}")
        if is_traced(self.matrix):
            return
        values = np.asarray(self.matrix)
        if not np.isfinite(values).all():
            raise ValueError("distances must be finite; the graph of the classes may be disconnected")
        if np.diagonal(values).any():
            raise ValueError("distances must be zero on the diagonal")
        if (values + np.eye(k) <= 0).any():
            raise ValueError("distances of different classes must be positive")
        if not np.allclose(values, values.T, rtol=1e-5, atol=0):
            raise ValueError("distances must be symmetric")

    def _distances(self, a: AnyArray, b: AnyArray) -> Array:
        return jnp.asarray(self.matrix)[a, b]

    def triangle_violation(self) -> float:
        """Returns by how much the triangle inequality is missed at most; zero for a true metric."""
        values = np.asarray(self.matrix)
        return max(0.0, *((values - (row[:, None] + row)).max() for row in values))


class EuclideanMetric(Metric):
    """Distances of class embeddings. With exponent 2 decoding finds the class nearest to the mean embedding."""

    _arrays = ("embeddings",)

    def __init__(self, embeddings: Float[AnyArray, "k d"], classes: Iterable[Hashable]):
        """Keeps one embedding for each class.

        Args:
          embeddings: ``(k, d)``, finite.
          classes: the id of each row, k of them.

        Raises:
          ValueError: if the embeddings are not finite or do not fit the ids.
        """
        self.class_ids = ClassIds(classes)
        self.embeddings = as_float(embeddings)
        k = len(self.class_ids)
        if self.embeddings.ndim != 2 or self.embeddings.shape[0] != k:
            raise ValueError(f"embeddings must be ({k}, d), one row for each class id, got {self.embeddings.shape}")
        if not is_traced(self.embeddings) and not np.isfinite(self.embeddings).all():
            raise ValueError("embeddings must be finite")

    def _distances(self, a: AnyArray, b: AnyArray) -> Array:
        x = jnp.asarray(self.embeddings)
        squared = jnp.sum(x**2, axis=1)
        # Inner products, not differences, so that a block of pairs needs no (pairs, d) array.
        if np.ndim(a) == 2 and np.shape(a)[1] == 1 and np.ndim(b) == 2 and np.shape(b)[0] == 1:
            inner = jnp.matmul(x[a[:, 0]], x[b[0]].T, precision=jax.lax.Precision.HIGHEST)
        else:
            inner = jnp.sum(x[a] * x[b], axis=-1)
        gap = jnp.maximum(squared[a] + squared[b] - 2 * inner, 0.0)
        return jnp.sqrt(jnp.where(jnp.equal(a, b), 0.0, gap))

    def frechet_mean(
        self, probs: Float[AnyArray, "n m"], observed: Int[AnyArray, " m"], exponent: float
    ) -> Int[Array, " n"]:
        """Returns the class index of least expected cost of each row, the first on ties; see :class:`Metric`."""
        if exponent == 2:
            return self._nearest_to_mean(jnp.asarray(probs), jnp.asarray(observed))
        return super().frechet_mean(probs, observed, exponent)

    @jax.jit
    def _nearest_to_mean(self, probs: Array, observed: Array) -> Array:
        x = jnp.asarray(self.embeddings, probs.dtype)
        x = x - x[observed].mean(axis=0)
        highest = jax.lax.Precision.HIGHEST
        mean = jnp.matmul(probs, x[observed], precision=highest) / probs.sum(axis=1, keepdims=True)
        norms = jnp.sum(x**2, axis=1)

        def costs(classes: Array) -> Array:
            return norms[classes] - 2 * jnp.matmul(mean, x[classes].T, precision=highest)

        return argmin_by_blocks(costs, probs.shape[0], len(self.class_ids), max(probs.shape[0], x.shape[1]))


class CompleteMetric(Metric):
    """All classes at distance one: decoding is the argmax of the observed classes."""

    def __init__(self, classes: Iterable[Hashable]):
        """Keeps the class ids."""
        self.class_ids = ClassIds(classes)

    def _distances(self, a: AnyArray, b: AnyArray) -> Array:
        return jnp.not_equal(a, b).astype(float)

    def frechet_mean(
        self, probs: Float[AnyArray, "n m"], observed: Int[AnyArray, " m"], exponent: float
    ) -> Int[Array, " n"]:
        """Returns the most probable observed class of each row, the first in the order of the classes on ties."""
        order = jnp.argsort(jnp.asarray(observed))
        return jnp.asarray(observed)[order][jnp.argmax(jnp.asarray(probs)[:, order], axis=1)]


def graph_metric(
    edges: Sequence[tuple[Hashable, Hashable, float]], classes: Iterable[Hashable] | None = None
) -> MatrixMetric:
    """Returns the metric of shortest paths in a connected undirected graph.

    Args:
      edges: ``(id, id, length)`` with positive lengths.
      classes: the nodes that are classes; by default all, in the order in which the edges name them.

    Returns:
      A metric over the classes, ``(k, k)`` distances in memory.

    Raises:
      ValueError: if a length is not positive, or the graph is not connected.
    """
    nodes = ClassIds(dict.fromkeys(node for a, b, _ in edges for node in (a, b)))
    lengths = np.array([length for *_, length in edges], float)
    if not (lengths > 0).all():
        raise ValueError("edges must have positive lengths")
    a, b = (nodes.indices([edge[i] for edge in edges], "edges") for i in (0, 1))
    graph = scipy.sparse.coo_array((lengths, (a, b)), shape=(len(nodes), len(nodes))).tocsr()
    chosen = nodes if classes is None else ClassIds(classes)
    rows = nodes.indices(chosen.ids, "classes")
    distances = scipy.sparse.csgraph.dijkstra(graph, directed=False, indices=rows)[:, rows]
    return MatrixMetric(distances, chosen.ids)


def grid_metric(shape: Sequence[int]) -> MatrixMetric:
    """Returns the city-block metric of a grid whose class ids are index tuples, for example ``(0, 2)``."""
    points = list(itertools.product(*(range(size) for size in shape)))
    coordinates = np.array(points, float)
    return MatrixMetric(np.abs(coordinates[:, None] - coordinates).sum(axis=-1), points)
