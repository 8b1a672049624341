import jax
import numpy as np
import pytest

from tests.curvature import shapes
from zsml_jax.curvature import embed_sampled, manifold
from zsml_jax.curvature.embed import Config
from zsml_jax.curvature.embed_sampled import Sampling
from zsml_jax.curvature.manifold import Product

PLANE = Product((("e", 1, 3), ("s", 1, 2)))


@pytest.mark.slow
def test_sampled_pairs_bring_the_distortion_of_a_cycle_down():
    graph = shapes.cycle(40)
    sampling = Sampling(sources=20, rounds=2, rows=8, columns=32, measured=100)
    found = embed_sampled.fit(graph, PLANE, Config(steps=300), sampling, key=jax.random.key(0))
    assert found.points.shape == (40,) and found.nodes == graph.nodes and found.losses.shape == (2,)
    # All 40 rows were measured, so that the figure is that of all pairs.
    x = found.points
    distances = np.asarray(manifold.distance(PLANE, found.params, x[:, None], x[None]))
    wanted = graph.distances()
    pairs = wanted > 0
    np.testing.assert_allclose(
        found.distortion, np.abs(distances / np.where(pairs, wanted, 1) - 1)[pairs].mean(), rtol=0.01
    )
    assert found.distortion < 0.2 and found.losses[1] < found.losses[0]


def test_bad_samples_and_graphs_are_refused():
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        Sampling(rows=0)
    parts = shapes.graphs.from_edges([("a", "b"), ("c", "d")])
    with pytest.raises(ValueError, match="2 components"):
        embed_sampled.fit(parts, PLANE, key=jax.random.key(0))
