import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.curvature import distortion

RNG = np.random.default_rng(0)
GRAPH = RNG.integers(1, 5, size=(9, 9)).astype(np.float32)
GRAPH = np.maximum(GRAPH, GRAPH.T)
POINTS = (GRAPH * RNG.uniform(0.5, 2.0, size=GRAPH.shape)).astype(np.float32).round(1)
PAIRS = ~np.eye(9, dtype=bool)


def brute_force_precision(points, neighbours):
    """Counts for every node and neighbour, in the words of the definition."""
    n, means = len(points), []
    for a in range(n):
        near, each = np.flatnonzero(neighbours[a]), []
        for b in near:
            reached = [c for c in range(n) if c != a and points[a, c] <= points[a, b]]
            each.append(len(set(reached) & set(near)) / len(reached))
        if each:
            means.append(np.mean(each))
    return np.mean(means)


def test_the_losses_are_their_formulas():
    p, g = jnp.array([1.0, 3.0]), jnp.array([2.0, 2.0])
    expected = {
        "squared_relative": [0.25, 0.25],
        "gu": [0.75, 1.25],
        "absolute": [1.0, 1.0],
        "symmetric": [1 / 2, 1 / 6],
        "log": [np.log(0.5) ** 2, np.log(1.5) ** 2],
    }
    for loss, values in expected.items():
        np.testing.assert_allclose(distortion.pair_losses(p, g, loss), values, rtol=1e-6)


def test_an_unknown_loss_is_refused(unchecked_types):
    with pytest.raises(ValueError, match=r"loss must be one of .*, got 'cubic'"):
        distortion.pair_losses(jnp.ones(1), jnp.ones(1), "cubic")


def test_average_and_worst_case_distortion_are_those_of_numpy():
    ratio = (POINTS / GRAPH)[PAIRS]
    np.testing.assert_allclose(distortion.average_distortion(POINTS, GRAPH, PAIRS), np.abs(ratio - 1).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        distortion.worst_case_distortion(POINTS, GRAPH, PAIRS), ratio.max() / ratio.min(), rtol=1e-5
    )


@pytest.mark.parametrize("ties", [False, True])
def test_mean_average_precision_is_that_of_brute_force_also_with_ties(ties):
    neighbours = (GRAPH == 1) & PAIRS
    neighbours[3] = False  # a node without neighbours does not count
    points = POINTS.round() if ties else POINTS
    found = distortion.mean_average_precision(points, neighbours, PAIRS)
    np.testing.assert_allclose(found, brute_force_precision(points, neighbours), rtol=1e-5)


def test_perfect_embeddings_have_perfect_scores():
    assert distortion.average_distortion(GRAPH, GRAPH, PAIRS) == 0
    np.testing.assert_allclose(distortion.worst_case_distortion(3 * GRAPH, GRAPH, PAIRS), 1, rtol=1e-6)
    assert distortion.mean_average_precision(GRAPH, (GRAPH == 1) & PAIRS, PAIRS) == 1
