import numpy as np
import pytest

from zsml_jax.report import plot_embedding

EDGES = np.array([[0, 1], [1, 2]])


def test_the_arc_of_two_points_of_the_disc_is_orthogonal_to_its_edge():
    a, b = np.array([0.5, 0.0]), np.array([0.0, 0.5])
    arc = plot_embedding._disc_geodesic(a, b)
    np.testing.assert_allclose(arc[[0, -1]], [a, b], atol=1e-12)
    # The circle through a, b and the inverse of a, which hyperbolic lines follow, has its centre at (1.25, 1.25).
    centre = np.array([1.25, 1.25])
    radii = np.linalg.norm(arc - centre, axis=1)
    np.testing.assert_allclose(radii, radii[0], rtol=1e-9)
    np.testing.assert_allclose(radii[0] ** 2 + 1, (centre**2).sum(), rtol=1e-9)

    # Also between points at the edge, whose geodesic comes far inside.
    far = plot_embedding._disc_geodesic((1 - 1e-6) * a / 0.5, (1 - 1e-6) * b / 0.5)
    assert np.linalg.norm(np.diff(far, axis=0), axis=1).max() < 0.2


def test_every_node_is_drawn_and_every_edge_is_a_line():
    x = np.array([[0.1, 0.2], [-0.5, 0.3], [0.0, -0.9]])
    (axes,) = plot_embedding.disc(x, EDGES).axes
    assert len(axes.lines) == 3
    np.testing.assert_allclose(axes.collections[0].get_offsets(), x)
    u = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
    (axes,) = plot_embedding.sphere(u, EDGES).axes
    assert sum(len(c.get_offsets()) for c in axes.collections) == 3 and len(axes.lines) == 3


def test_points_elsewhere_are_refused():
    with pytest.raises(ValueError, match="inside of the unit disc"):
        plot_embedding.disc(np.ones((3, 2)), EDGES)
    with pytest.raises(ValueError, match="unit length"):
        plot_embedding.sphere(np.ones((3, 3)), EDGES)
