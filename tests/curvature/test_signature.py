import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.curvature import shapes
from zsml_jax.curvature import signature


def test_there_are_63_signatures_of_at_most_100_dimensions():
    products = signature.all_signatures()
    assert len({signature.counts(p) for p in products}) == 63
    assert {p.dim for p in products} <= set(range(96, 101))
    families = [signature.family(p) for p in products]
    assert [families.count(f) for f in ("hyperbolic", "Euclidean", "spherical", "mixed")] == [3, 3, 3, 54]


def estimates(graph):
    neighbours = graph.adjacency()
    distances = jnp.asarray(graph.distances(), jnp.float32)
    return np.asarray(signature.sectional_curvatures(distances, neighbours, key=jax.random.key(0), samples=300))


def test_estimates_are_negative_in_trees_zero_on_lines_and_positive_in_cycles():
    assert estimates(shapes.tree(3)).max() <= 0 and estimates(shapes.tree(3)).mean() < -0.1
    np.testing.assert_array_equal(estimates(shapes.line(7)), 0)
    assert estimates(shapes.cycle(7)).min() >= 0 and estimates(shapes.cycle(7)).mean() > 0.02


def test_the_estimates_of_a_star_are_those_worked_out_by_hand():
    star = shapes.graphs.from_edges([("hub", leaf) for leaf in "abcde"])
    found = estimates(star)
    # a is a third leaf, or b or c itself, at distance 0 of one of them: (1 + 1 - 4) / 2 or (1 + 1 - 2) / 2.
    assert set(found.round(6).tolist()) == {-1.0, 0.0}


def test_a_signature_follows_the_estimates():
    for graph, expected in ((shapes.tree(4), "h"), (shapes.cycle(9), "s")):
        product = signature.suggest(graph.distances(), graph.adjacency(), key=jax.random.key(0), dim=12)
        counts = dict(zip("hes", signature.counts(product), strict=True))
        assert sum(counts.values()) == 3 and counts[expected] >= 1 and counts["hs".replace(expected, "")] == 0


def test_signatures_and_graphs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="not be negative nor all zero"):
        signature.product_of(0, 0, 0)
    with pytest.raises(ValueError, match="dim must be at least the number of factors, 3, got 2"):
        signature.product_of(1, 1, 1, dim=2)
    with pytest.raises(ValueError, match="not connected"):
        signature.sectional_curvatures(np.full((3, 3), np.inf), np.ones((3, 3), bool), key=jax.random.key(0))
    with pytest.raises(ValueError, match="no triangle"):
        signature.sectional_curvatures(np.ones((2, 2)), np.eye(2, dtype=bool)[::-1], key=jax.random.key(0))
