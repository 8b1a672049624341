import jax.numpy as jnp
import numpy as np
import pytest

from tests.curvature import shapes
from zsml_jax.curvature import baselines
from zsml_jax.data import graphs


def test_laplacian_eigenmaps_of_a_cycle_are_its_circle():
    found = baselines.laplacian_eigenmaps(shapes.cycle(12), 2)
    radii = jnp.linalg.norm(found.x, axis=1)
    np.testing.assert_allclose(radii, radii[0], rtol=1e-4)


def test_dimensions_beyond_the_eigenvectors_are_zero():
    found = baselines.laplacian_eigenmaps(shapes.line(4), 6)
    assert found.x.shape == (4, 6) and (found.x[:, 3:] == 0).all()


def test_the_scale_is_the_one_that_least_squares_finds():
    graph = shapes.grid(3)
    found = baselines.laplacian_eigenmaps(graph, 3)
    x, wanted, pairs = np.asarray(found.x, np.float64), graph.distances(), ~np.eye(9, dtype=bool)
    ratio = (np.linalg.norm(x[:, None] - x, axis=-1) / np.where(pairs, wanted, 1))[pairs]
    expected = np.linalg.lstsq(ratio[:, None], np.ones(len(ratio)), rcond=None)[0][0]
    np.testing.assert_allclose(found.scale, expected, rtol=1e-4)
    assert found.scores.distortion < found.unscaled.distortion
    np.testing.assert_allclose(found.scores.mean_average_precision, found.unscaled.mean_average_precision, rtol=1e-6)


def test_walks_follow_edges_and_turn_back_as_seldom_as_p_says(key):
    adjacency = jnp.asarray(shapes.cycle(6).adjacency())
    starts = jnp.zeros(400, int)
    shares = {}
    for p in (0.25, 4.0):
        walks = np.asarray(baselines.random_walks(adjacency, starts, 5, key=key, p=p))
        assert np.asarray(adjacency)[walks[:, :-1], walks[:, 1:]].all()
        shares[p] = np.mean(walks[:, 2:] == walks[:, :-2])
    # On a cycle a walk goes back with weight 1/p or on with weight 1/q = 1.
    assert abs(shares[0.25] - 0.8) < 0.04 and abs(shares[4.0] - 0.2) < 0.04


@pytest.mark.slow
def test_node2vec_puts_two_cliques_apart(key):
    clique = lambda name: [(f"{name}{i}", f"{name}{j}") for i in range(5) for j in range(i)]
    graph = graphs.from_edges([*clique("a"), *clique("b"), ("a0", "b0")])
    found = baselines.node2vec(graph, 4, key=key, walk_length=6, context=3, epochs=100, learning_rate=0.05)
    scores = np.asarray(found.x @ found.x.T)
    assert scores[:5, :5].mean() > scores[:5, 5:].mean() + 0.5


def test_bad_numbers_are_refused(key):
    with pytest.raises(ValueError, match="dim must be positive"):
        baselines.laplacian_eigenmaps(shapes.line(3), 0)
    with pytest.raises(ValueError, match="q must be positive"):
        baselines.node2vec(shapes.line(3), 2, key=key, q=0.0)
