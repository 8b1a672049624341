import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zeroshot.trees import random_tree
from zsml_jax.evaluate.calibration import expected_calibration_error
from zsml_jax.zeroshot import loki, metric_base, tree_metric
from zsml_jax.zeroshot.metric_space import CompleteMetric, EuclideanMetric, MatrixMetric, TreeMetric, graph_metric


def dense_costs(edges, observed, probs, exponent=2.0):
    """Expected costs of all classes in float64, from the matrix of shortest paths."""
    graph = graph_metric(edges)
    columns = [graph.classes.index(name) for name in observed]
    return probs @ (graph.matrix[:, columns] ** exponent).T


def assert_least(predictions, costs):
    chosen = costs[np.arange(len(costs)), np.asarray(predictions)]
    np.testing.assert_array_less(chosen, costs.min(1) + 1e-5 * costs.max() + 1e-12)


@settings(deadline=None, max_examples=6)
@given(
    seed=st.integers(0, 10**6),
    n=st.sampled_from([2, 40]),  # few sizes, as each is compiled
    share=st.sampled_from([0.01, 0.5, 1.0]),
    reach=st.sampled_from([1, 3, 10**6]),
    unit=st.booleans(),
    all_nodes=st.booleans(),
)
def test_tree_decoding_is_least_in_dense_float64(seed, n, share, reach, unit, all_nodes):
    edges = random_tree(seed, n, reach=reach, unit=unit)
    rng = np.random.default_rng(seed)
    tree = TreeMetric(edges) if all_nodes else TreeMetric(edges, classes=graph_metric(edges).classes)
    observed = [tree.classes[i] for i in rng.choice(n, max(1, int(share * n)), replace=False)]
    probs = rng.dirichlet(np.full(len(observed), 0.5), size=8)
    costs = dense_costs(edges, observed, probs)
    predictions = loki.decode(probs, tree, observed=observed)
    assert_least(predictions, costs)
    np.testing.assert_allclose(
        loki.expected_cost(probs, tree, observed=observed), costs, rtol=1e-3, atol=1e-4 * costs.max() + 1e-6
    )
    np.testing.assert_allclose(
        loki.expected_cost(probs, tree, predictions, observed=observed),
        costs[np.arange(8), np.asarray(predictions)],
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 3.0, 8.0])
def test_other_exponents_are_least_in_dense_float64(exponent):
    edges = random_tree(3, 30)
    rng = np.random.default_rng(3)
    observed = rng.choice(30, 10, replace=False).tolist()
    probs = rng.dirichlet(np.ones(10), size=20)
    costs = dense_costs(edges, observed, probs, exponent)
    for metric in (TreeMetric(edges), graph_metric(edges)):
        assert_least(loki.decode(probs, metric, observed=observed, exponent=exponent), costs)


def test_the_first_class_wins_a_tie():
    path = TreeMetric([("d", "c", 1.0), ("c", "b", 1.0), ("b", "a", 1.0)])
    assert path.classes == ("d", "c", "b", "a")
    assert loki.decode(np.array([[0.5, 0.5]]), path, observed=("a", "d")).tolist() == [1]
    subset = TreeMetric([("d", "c", 1.0), ("c", "b", 1.0), ("b", "a", 1.0)], classes=("b", "c", "a", "d"))
    assert loki.decode(np.array([[0.5, 0.5]]), subset, observed=("a", "d")).tolist() == [0]


def test_the_released_order_of_distances_does_not_matter_because_ids_are_keys():
    edges = random_tree(5, 12, unit=True)
    graph = graph_metric(edges)
    rng = np.random.default_rng(5)
    order = rng.permutation(12)
    shuffled = MatrixMetric(graph.matrix[np.ix_(order, order)], [graph.classes[i] for i in order])
    probs = rng.dirichlet(np.ones(12), size=50)
    here = [graph.classes[i] for i in loki.decode(probs, graph)]
    there = [shuffled.classes[i] for i in loki.decode(probs, shuffled, observed=graph.classes)]
    costs = dense_costs(edges, graph.classes, probs)
    unique = (np.sort(costs, 1)[:, 1] - costs.min(1)) > 1e-6
    assert np.array(here)[unique].tolist() == np.array(there)[unique].tolist()
    scrambled = MatrixMetric(graph.matrix[np.ix_(order, order)], graph.classes)
    assert np.mean([scrambled.classes[i] for i in loki.decode(probs, scrambled)] == np.array(here)) < 0.9


def test_on_the_complete_graph_loki_is_the_argmax():
    probs = np.random.default_rng(6).dirichlet(np.ones(5), size=100)
    assert loki.decode(probs, CompleteMetric("abcde")).tolist() == probs.argmax(1).tolist()
    as_matrix = MatrixMetric(1.0 - np.eye(5), "abcde")
    assert loki.decode(probs, as_matrix).tolist() == probs.argmax(1).tolist()
    partial = CompleteMetric("abcde")
    assert loki.decode(np.array([[0.4, 0.6]]), partial, observed=("d", "b")).tolist() == [1]
    assert loki.decode(np.array([[0.5, 0.5]]), partial, observed=("d", "b")).tolist() == [1]


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_euclidean_decoding_by_blocks_is_least_in_dense_float64(exponent, monkeypatch):
    monkeypatch.setattr(metric_base, "_BLOCK_ENTRIES", 300)
    jax.clear_caches()
    rng = np.random.default_rng(7)
    x = rng.normal(size=(50, 8))
    probs = rng.dirichlet(np.full(20, 0.3), size=30)
    observed = rng.choice(50, 20, replace=False).tolist()
    metric = EuclideanMetric(x, range(50))
    costs = probs @ (np.linalg.norm(x[:, None] - x[observed], axis=-1) ** exponent).T
    assert_least(loki.decode(probs, metric, observed=observed, exponent=exponent), costs)
    assert_least(
        loki.decode(
            probs,
            MatrixMetric(np.linalg.norm(x[:, None] - x, axis=-1), range(50)),
            observed=observed,
            exponent=exponent,
        ),
        costs,
    )
    jax.clear_caches()


def test_decoding_a_large_tree_by_hull_and_by_rerooting_agrees(monkeypatch):
    edges = random_tree(8, 3000, reach=400)
    nodes = graph_nodes(edges)
    rng = np.random.default_rng(8)
    observed = rng.choice(3000, 60, replace=False).tolist()
    probs = rng.dirichlet(np.full(60, 0.2), size=40).astype(np.float32)
    hull = loki.decode(probs, TreeMetric(edges), observed=observed)
    monkeypatch.setattr(tree_metric, "_BLOCK_ENTRIES", 10_000)
    rerooted = loki.decode(probs, TreeMetric(edges, classes=nodes), observed=observed)
    assert np.mean(np.asarray(hull) == np.asarray(rerooted)) > 0.97


@pytest.mark.slow
def test_deep_paths_and_wide_stars_decode_to_the_rounded_mean_in_float32():
    n = 100_000
    path = TreeMetric([(i, i + 1, 1.0) for i in range(n - 1)])
    rng = np.random.default_rng(12)
    observed = np.sort(rng.choice(n, 30, replace=False))
    probs = rng.dirichlet(np.ones(30), size=50).astype(np.float32)
    mean = probs.astype(np.float64) @ observed / probs.astype(np.float64).sum(1)
    found = np.array([path.classes[i] for i in loki.decode(probs, path, observed=observed.tolist())])
    assert np.abs(found - mean).max() < 0.6
    star = TreeMetric([("hub", i, 1.0) for i in range(n)])
    decoded = loki.decode(np.array([[0.3, 0.7], [0.0, 1.0]]), star, observed=(5, 7))
    assert [star.classes[i] for i in decoded] == ["hub", 7]


def graph_nodes(edges):
    return list(dict.fromkeys(node for a, b, _ in edges for node in (a, b)))


def test_jit_vmap_and_a_loop_agree_and_a_second_call_does_not_retrace():
    tree = TreeMetric(random_tree(9, 25))
    probs = np.random.default_rng(9).dirichlet(np.ones(25), size=(3, 10)).astype(np.float32)
    decode = jax.jit(chex.assert_max_traces(lambda p: loki.decode(p, tree), n=1))
    eager = [loki.decode(p, tree) for p in probs]
    for p, expected in zip(probs, eager, strict=True):
        np.testing.assert_array_equal(decode(p), expected)
    np.testing.assert_array_equal(jax.vmap(lambda p: loki.decode(p, tree))(probs), np.stack(eager))


def test_the_expected_cost_is_linear_in_the_probabilities():
    tree = TreeMetric(random_tree(10, 8))
    gradient = jax.grad(lambda p: loki.expected_cost(p, tree, np.array([3])).sum())(jnp.full((1, 8), 0.125))
    distances = np.asarray(tree.distances(np.full(8, 3), np.arange(8)))
    np.testing.assert_allclose(gradient[0], distances**2, rtol=1e-5)


def test_the_report_tells_distance_and_accuracy_together():
    path = TreeMetric([("a", "b", 1.0), ("b", "c", 1.0)])
    figures = loki.report(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 0]), path)
    assert figures.squared_distance == 1.25
    assert figures.normalized == 1.25 / 4
    assert figures.accuracy == 0.5


@pytest.mark.parametrize("criterion", ["ece", "nll", "expected_cost"])
def test_the_tuned_temperature_is_the_best_of_the_grid(criterion):
    rng = np.random.default_rng(11)
    tree = TreeMetric(random_tree(11, 12))
    labels = rng.integers(0, 12, 400)
    logits = 6.0 * (np.eye(12)[labels] * 2 + rng.normal(size=(400, 12)))
    grid = np.array([0.5, 1.0, 3.0, 6.0, 12.0])
    tuned = loki.tune_temperature(logits, labels, tree, temperatures=grid, criterion=criterion)

    def value(t):
        p = jax.nn.softmax(logits / t, axis=1)
        if criterion == "ece":
            return expected_calibration_error(labels, p)
        if criterion == "nll":
            return -np.mean(np.log(p[np.arange(400), labels]))
        return loki.report(labels, loki.decode(p, tree), tree).squared_distance

    expected = np.array([float(value(t)) for t in grid])
    np.testing.assert_allclose(tuned.values, expected, rtol=1e-4)
    assert tuned.temperature == grid[expected.argmin()]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": np.array([[0.5, -0.5]])}, "row 0"),
        ({"probs": np.array([[0.5, np.nan]])}, "row 0"),
        ({"probs": np.array([[0.5, 0.5], [0.0, 0.0]])}, "row 1"),
        ({"probs": np.array([0.5, 0.5])}, "shape"),
        ({"probs": np.ones((1, 3))}, "3 columns"),
        ({"observed": ("a", "z")}, "'z'"),
        ({"observed": ("a", "a")}, "twice"),
        ({"observed": None}, "2 columns"),
        ({"exponent": 0.0}, "exponent"),
    ],
)
def test_bad_input_is_named(change, message):
    tree = TreeMetric([("a", "b", 1.0), ("b", "c", 1.0)])
    good = {"probs": np.array([[0.5, 0.5]]), "metric": tree, "observed": ("a", "c")}
    with pytest.raises(ValueError, match=message):
        loki.decode(**{**good, **change})
