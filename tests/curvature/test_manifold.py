import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.curvature import manifold, stereographic
from zsml_jax.curvature.manifold import Product

PRODUCT = Product((("h", 2, 3), ("e", 1, 4), ("s", 1, 2), ("k", 1, 3)))


@pytest.fixture
def params():
    return manifold.init(PRODUCT, kappa=-0.3)


def some_points(params, seed, n=5):
    return manifold.random_points(PRODUCT, params, (n,), key=jax.random.key(seed), scale=0.4)


def test_a_product_tells_its_dimension_and_its_factors():
    assert (PRODUCT.dim, PRODUCT.num_factors, str(PRODUCT)) == (15, 5, "(H3)^2 x (E4)^1 x (S2)^1 x (K3)^1")
    assert Product(PRODUCT.factors) == PRODUCT and hash(PRODUCT) == hash(Product(PRODUCT.factors))


@pytest.mark.slow
def test_there_is_one_distance_for_each_pair_and_it_is_the_root_of_the_sum_of_squares(params):
    x, y = some_points(params, 0), some_points(params, 1)
    each = manifold.factor_distances(PRODUCT, params, x[:, None], y[None])
    assert each.shape == (5, 5, 5)
    for reduction, expected in (("l2", (each**2).sum(-1) ** 0.5), ("l1", each.sum(-1)), ("min", each.min(-1))):
        found = manifold.distance(PRODUCT, params, x[:, None], y[None], reduction=reduction)
        assert found.shape == (5, 5)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.oracle
def test_products_are_those_of_geomstats(geomstats, x64):
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.geometry.hyperboloid import Hyperboloid
    from geomstats.geometry.hypersphere import Hypersphere
    from geomstats.geometry.product_manifold import ProductManifold

    del geomstats
    theirs = ProductManifold([Hyperboloid(3), Euclidean(4), Hypersphere(2)])
    ours = Product((("h", 1, 3), ("e", 1, 4), ("s", 1, 2)))
    params = manifold.init(ours, dtype=jnp.float64)
    x, y = (
        manifold.random_points(ours, params, (5,), key=jax.random.key(seed), scale=0.4, dtype=jnp.float64)
        for seed in (0, 1)
    )
    # A Euclidean point has a zero before its coordinates here.
    flat = lambda p: np.concatenate([p.parts[0][:, 0], p.parts[1][:, 0, 1:], p.parts[2][:, 0]], -1)
    metric = theirs.metric
    np.testing.assert_allclose(manifold.distance(ours, params, x, y), metric.dist(flat(x), flat(y)), rtol=1e-9)
    v = manifold.log(ours, params, x, y)
    np.testing.assert_allclose(flat(v), metric.log(flat(y), flat(x)), rtol=1e-9, atol=1e-9)
    half = jax.tree.map(lambda a: a / 2, v)
    expected = metric.exp(flat(v) / 2, flat(x))
    np.testing.assert_allclose(flat(manifold.exp(ours, params, x, half)), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_scale_stretches_the_distances_of_its_factor_and_sets_its_curvature(params):
    scaled = ({"log_scale": jnp.log(jnp.array([2.0, 3.0]))}, *params[1:])
    x, y = some_points(params, 0), some_points(params, 1)
    ratio = manifold.factor_distances(PRODUCT, scaled, x, y) / manifold.factor_distances(PRODUCT, params, x, y)
    np.testing.assert_allclose(ratio, jnp.broadcast_to(jnp.array([2.0, 3.0, 1.0, 1.0, 1.0]), (5, 5)), rtol=1e-5)
    np.testing.assert_allclose(manifold.curvatures(PRODUCT, scaled)[0], [-1 / 4, -1 / 9], rtol=1e-6)
    # A ball of curvature -1/4 holds the same points at the same distances as the scaled hyperboloid.
    u = jnp.array([[0.3, -0.2, 0.1], [0.5, 0.4, -0.6]])
    one = Product((("h", 1, 3),))
    lifted = manifold.exp0(one, manifold.init(one), [u[:, None]])
    on_hyperboloid = manifold.distance(one, ({"log_scale": jnp.log(jnp.array([2.0]))},), lifted[0], lifted[1])
    ball = stereographic.exp0(u, -0.25)
    half = stereographic.exp0(2 * u / 2, -0.25)  # a velocity of length r at the origin reaches 2 r away
    np.testing.assert_allclose(half, ball)
    np.testing.assert_allclose(stereographic.distance(ball[0], ball[1], -0.25), on_hyperboloid, rtol=1e-5)


@pytest.mark.slow
def test_logarithms_undo_exponentials_in_every_factor(params):
    x, y = some_points(params, 0), some_points(params, 1)
    again = manifold.exp(PRODUCT, params, x, manifold.log(PRODUCT, params, x, y))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again, y)
    tangents = manifold.log0(PRODUCT, params, x)
    again = manifold.exp0(PRODUCT, params, tangents)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), again, x)
    projected = manifold.project(PRODUCT, params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), projected, x)


def test_transport_to_the_same_point_changes_nothing(params):
    x, y = some_points(params, 0), some_points(params, 1)
    v = manifold.log(PRODUCT, params, x, y)
    moved = manifold.transport(PRODUCT, params, x, x, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), moved, v)


@pytest.mark.slow
def test_distance_under_jit_and_vmap_is_the_eager_one_traced_once_with_finite_gradients(params):
    traces = []

    def function(params, x, y):
        traces.append(1)
        return manifold.distance(PRODUCT, params, x, y)

    x, y = some_points(params, 0), some_points(params, 1)
    eager = manifold.distance(PRODUCT, params, x, y)
    jitted = jax.jit(function)
    np.testing.assert_allclose(jitted(params, x, y), eager, rtol=1e-5)
    jitted(params, y, x)
    assert len(traces) == 1
    one_by_one = jnp.stack([manifold.distance(PRODUCT, params, x[i], y[i]) for i in range(5)])
    np.testing.assert_allclose(jax.vmap(jitted, (None, 0, 0))(params, x, y), one_by_one, rtol=1e-5)
    gradients = jax.grad(lambda p, a: function(p, a[:, None], a[None]).sum(), (0, 1))(params, x)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradients))


def test_points_of_another_product_are_refused(params):
    other = Product((("h", 2, 3),))
    x = manifold.origin(other, (2,))
    with pytest.raises(ValueError, match=r"points must be of \(H3\)\^2 x .*got points of \(H3\)\^2"):
        manifold.distance(PRODUCT, params, x, x)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((), "at least one"),
        ((("q", 1, 2),), "kind 'h', 'e', 's' or 'k', got \\('q', 1, 2\\)"),
        ((("h", 0, 2),), "at least 1 copy"),
        ((("h", 1, 0),), "1 dimension"),
    ],
)
def test_a_product_that_cannot_be_is_refused(factors, message):
    with pytest.raises(ValueError, match=message):
        Product(factors)


@pytest.mark.slow
def test_an_unknown_reduction_is_refused(params, unchecked_types):
    x = some_points(params, 0)
    with pytest.raises(ValueError, match="reduction must be 'l2', 'l1' or 'min', got 'max'"):
        manifold.distance(PRODUCT, params, x, x, reduction="max")
