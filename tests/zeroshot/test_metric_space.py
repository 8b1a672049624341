import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zeroshot.trees import random_tree
from zsml_jax.zeroshot.metric_space import (
    CompleteMetric,
    EuclideanMetric,
    MatrixMetric,
    TreeMetric,
    graph_metric,
    grid_metric,
)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10**6), n=st.sampled_from([2, 40]), reach=st.sampled_from([1, 3, 10**6]))
def test_tree_distances_are_shortest_paths(seed, n, reach):
    edges = random_tree(seed, n, reach=reach)
    tree, graph = TreeMetric(edges), graph_metric(edges)
    assert tree.classes == graph.classes
    pairs = np.arange(len(tree.classes))
    np.testing.assert_allclose(tree.distances(pairs[:, None], pairs[None]), graph.matrix, atol=1e-4)
    assert tree.diameter == pytest.approx(graph.diameter, rel=1e-5)
    inside = pairs[:: max(1, len(pairs) // 3)]
    np.testing.assert_allclose(tree.distances_to_set(inside), graph.matrix[:, inside].min(1), atol=1e-4)


def test_a_path_of_many_nodes_needs_no_recursion():
    n = 20_000
    tree = TreeMetric([(i, i + 1, 0.5) for i in range(n - 1)])
    assert tree.distance([0, 17], [n - 1, 5]).tolist() == [0.5 * (n - 1), 6.0]
    assert tree.diameter == 0.5 * (n - 1)


def test_a_hierarchy_has_unit_edges_and_may_name_its_leaves_as_classes():
    tree = TreeMetric.from_hierarchy(
        [("cat", "animal"), ("dog", "animal"), ("car", "thing"), ("animal", "thing")], ["dog", "car"]
    )
    assert tree.classes == ("dog", "car")
    assert tree.distance(["dog"], ["car"]).tolist() == [3.0]


def test_euclidean_distances_are_norms():
    x = np.random.default_rng(0).normal(size=(7, 3))
    metric = EuclideanMetric(x, "abcdefg")
    expected = np.linalg.norm(x[:, None] - x, axis=-1)
    i = np.arange(7)
    np.testing.assert_allclose(metric.distances(i[:, None], i[None]), expected, atol=1e-3)
    np.testing.assert_allclose(metric.distance(["a", "b"], ["c", "b"]), [expected[0, 2], 0.0], atol=1e-5)
    assert metric.diameter == pytest.approx(expected.max(), rel=1e-5)


def test_a_grid_has_city_block_distances():
    grid = grid_metric((3, 4))
    for a, b in itertools.product([(0, 0), (2, 3), (1, 2)], repeat=2):
        assert grid.distance([a], [b])[0] == abs(a[0] - b[0]) + abs(a[1] - b[1])
    assert CompleteMetric("abc").distance(["a", "b"], ["a", "c"]).tolist() == [0.0, 1.0]


def test_a_permuted_matrix_is_told_by_its_ids():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 2))
    d = np.linalg.norm(x[:, None] - x, axis=-1)
    order = rng.permutation(6)
    here = MatrixMetric(d, range(6))
    there = MatrixMetric(d[np.ix_(order, order)], order)
    np.testing.assert_allclose(here.distance([0, 3], [5, 2]), there.distance([0, 3], [5, 2]))


def test_metrics_are_pytrees_with_static_ids():
    tree = TreeMetric([("a", "b", 1.0), ("b", "c", 2.0)])
    again = jax.jit(lambda metric: metric)(tree)
    assert again.classes == tree.classes
    assert again.distance(["a"], ["c"])[0] == 3.0
    assert jax.jit(lambda metric: metric.distance(["a"], ["c"]))(tree)[0] == 3.0


def test_a_triangle_violation_is_measured():
    d = np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [5.0, 1.0, 0.0]])
    assert MatrixMetric(d, "abc").triangle_violation() == 3.0
    assert grid_metric((2, 3)).triangle_violation() == 0.0


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TreeMetric([]), "empty"),
        (lambda: TreeMetric([("a", "b", 1.0), ("c", "d", 1.0)]), "connected"),
        (lambda: TreeMetric([("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0)]), "3 nodes need 2 edges"),
        (lambda: TreeMetric([("a", "b", 1.0), ("b", "a", 2.0)]), "2 nodes need 1"),
        (lambda: TreeMetric([("a", "b", 0.0)]), "positive"),
        (lambda: TreeMetric([("a", "b", np.nan)]), "positive"),
        (lambda: TreeMetric([("a", "a", 1.0)]), "different"),
        (lambda: TreeMetric([("a", "b", 1.0)], classes=["a", "z"]), "unknown: 'z'"),
        (lambda: TreeMetric([("a", "b", 1.0)]).distance(["a"], ["q"]), "'q'"),
        (lambda: MatrixMetric(np.zeros((2, 2)), "ab"), "positive"),
        (lambda: MatrixMetric(np.array([[0, 1.0], [2.0, 0]]), "ab"), "symmetric"),
        (lambda: MatrixMetric(np.array([[1.0, 1.0], [1.0, 0]]), "ab"), "diagonal"),
        (lambda: MatrixMetric(np.array([[0, np.inf], [np.inf, 0]]), "ab"), "finite"),
        (lambda: MatrixMetric(np.zeros((2, 3)), "ab"), "class id"),
        (lambda: MatrixMetric(np.ones((2, 2)) - np.eye(2), "aa"), "distinct"),
        (lambda: MatrixMetric(np.ones((2, 2)) - np.eye(2), []), "at least one"),
        (lambda: EuclideanMetric(np.full((2, 2), np.nan), "ab"), "finite"),
        (lambda: EuclideanMetric(np.zeros((3, 2)), "ab"), "class id"),
        (lambda: graph_metric([("a", "b", 1.0), ("c", "d", 1.0)]), "disconnected"),
        (lambda: graph_metric([("a", "b", -1.0)]), "positive"),
    ],
)
def test_what_is_no_metric_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
