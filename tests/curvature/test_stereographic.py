"""The oracles are geoopt's stereographic manifold and geomstats' Poincaré ball; closed forms and properties beside."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.curvature import stereographic

KAPPAS = (-1.7, -0.4, 0.0, 0.4, 1.7)


def points(seed, kappa, n=6, d=3):
    """Points well inside of the ball of any of the curvatures."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=-1, keepdims=True) * np.linspace(0.05, 0.6, n)[:, None]


def geoopt_math():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # geoopt compiles by torch.jit, which Python 3.14 will not support
        pytest.importorskip("torch", reason="needs the oracle extra")
        return pytest.importorskip("geoopt.manifolds.stereographic.math", reason="needs the oracle extra")


@pytest.mark.oracle
@pytest.mark.parametrize("kappa", KAPPAS)
def test_every_operation_is_that_of_geoopt(kappa, x64):
    math = geoopt_math()
    import torch

    x, y, v = points(0, kappa), points(1, kappa), points(2, kappa)
    tx, ty, tv, k = (torch.tensor(a, dtype=torch.float64) for a in (x, y, v, kappa))
    jx, jy, jv = map(jnp.asarray, (x, y, v))
    pairs = {
        "add": (stereographic.add(jx, jy, kappa), math.mobius_add(tx, ty, k=k)),
        "scale": (
            stereographic.scale(0.7, jx, kappa),
            math.mobius_scalar_mul(torch.tensor(0.7, dtype=torch.float64), tx, k=k),
        ),
        "factor": (stereographic.conformal_factor(jx, kappa), math.lambda_x(tx, k=k)),
        "exp": (stereographic.exp(jx, jv, kappa), math.expmap(tx, tv, k=k)),
        "log": (stereographic.log(jx, jy, kappa), math.logmap(tx, ty, k=k)),
        "exp0": (stereographic.exp0(jv, kappa), math.expmap0(tv, k=k)),
        "log0": (stereographic.log0(jx, kappa), math.logmap0(tx, k=k)),
        "distance": (stereographic.distance(jx, jy, kappa), math.dist(tx, ty, k=k)),
        "distance0": (stereographic.distance0(jx, kappa), math.dist0(tx, k=k)),
        "gyration": (stereographic.gyration(jx, jy, jv, kappa), math.gyration(tx, ty, tv, k=k)),
        "transport": (stereographic.transport(jx, jy, jv, kappa), math.parallel_transport(tx, ty, tv, k=k)),
        "gradient": (stereographic.riemannian_gradient(jx, jv, kappa), math.egrad2rgrad(tx, tv, k=k)),
        "midpoint": (
            stereographic.gyromidpoint(jx, jnp.arange(1.0, 7.0), kappa),
            math.weighted_midpoint(tx, torch.arange(1.0, 7.0, dtype=torch.float64), k=k),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)


@pytest.mark.oracle
def test_the_space_of_curvature_minus_one_is_the_poincare_ball_of_geomstats(geomstats, x64):
    del geomstats
    ball = importlib.import_module("geomstats.geometry.poincare_ball").PoincareBall(3)
    x, y, v = (jnp.asarray(points(i, -1.0)) for i in range(3))
    pairs = {
        "distance": (stereographic.distance(x, y, -1.0), ball.metric.dist(np.asarray(x), np.asarray(y))),
        "exp": (stereographic.exp(x, v, -1.0), ball.metric.exp(np.asarray(v), np.asarray(x))),
        "log": (stereographic.log(x, y, -1.0), ball.metric.log(np.asarray(y), np.asarray(x))),
        "length": (
            stereographic.conformal_factor(x, -1.0) * jnp.linalg.norm(v, axis=-1),
            ball.metric.norm(np.asarray(v), np.asarray(x)),
        ),
    }
    for name, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=name)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), kappa=st.floats(-1.5, 1.5, width=32))
def test_logarithms_undo_exponentials_and_distances_obey_the_triangle_inequality(seed, kappa):
    kappa = jnp.float32(kappa)
    x, y, z = (jnp.asarray(points(seed + i, kappa), jnp.float32) for i in range(3))
    np.testing.assert_allclose(stereographic.exp(x, stereographic.log(x, y, kappa), kappa), y, atol=2e-5)
    to = lambda a, b: stereographic.distance(a, b, kappa)
    np.testing.assert_array_less(to(x, z), to(x, y) + to(y, z) + 1e-5)
    np.testing.assert_allclose(to(x, y), to(y, x), rtol=1e-6)
    length = stereographic.conformal_factor(x, kappa) * jnp.linalg.norm(stereographic.log(x, y, kappa), axis=-1)
    np.testing.assert_allclose(length, to(x, y), rtol=1e-3, atol=1e-5)


def test_transport_keeps_inner_products():
    for kappa in KAPPAS:
        x, y, v, w = (jnp.asarray(points(i, kappa), jnp.float32) for i in range(4))
        at = lambda p, a, b, k=kappa: stereographic.conformal_factor(p, k) ** 2 * jnp.sum(a * b, -1)
        moved = [stereographic.transport(x, y, a, kappa) for a in (v, w)]
        np.testing.assert_allclose(at(y, *moved), at(x, v, w), rtol=1e-4, atol=1e-5)


def test_at_zero_curvature_everything_is_euclidean_and_distances_are_twice_as_long():
    x, y = (jnp.asarray(points(i, 0.0)) for i in range(2))
    np.testing.assert_allclose(stereographic.add(x, y, 0.0), x + y, rtol=1e-6)
    np.testing.assert_allclose(stereographic.distance(x, y, 0.0), 2 * jnp.linalg.norm(x - y, axis=-1), rtol=1e-6)
    mean = stereographic.gyromidpoint(x, jnp.ones(6), 0.0)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("function", ["distance", "log", "add", "exp", "transport", "gyromidpoint"])
def test_gradients_in_the_curvature_are_finite_differences_on_both_sides_of_zero_and_at_it(function, x64):
    x, y, v = (jnp.asarray(points(i, 0.0)) for i in range(3))
    arguments = {"transport": (x, y, v), "gyromidpoint": (x, jnp.arange(1.0, 7.0))}.get(function, (x, y))
    total = lambda kappa: jnp.sum(getattr(stereographic, function)(*arguments, kappa) * 1.1)
    kappas, h = jnp.array([-0.7, -1e-4, 0.0, 1e-4, 0.7]), 1e-5
    values = jax.jit(jax.vmap(jax.value_and_grad(total)))
    expected = (values(kappas + h)[0] - values(kappas - h)[0]) / (2 * h)
    np.testing.assert_allclose(values(kappas)[1], expected, rtol=1e-5, atol=1e-7)


def test_gradients_at_equal_points_the_origin_and_zero_curvature_are_not_nan():
    x = jnp.concatenate([jnp.asarray(points(0, 0.0), jnp.float32), jnp.zeros((1, 3))])

    def loss(p, q, v, kappa):
        equal = stereographic.distance(p, q, kappa) + stereographic.log(p, q, kappa).sum(-1)
        return jnp.sum(equal + stereographic.exp(p, v, kappa).sum(-1))

    gradients = jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1, 2, 3)), (None, None, None, 0)))
    assert all(bool(jnp.isfinite(g).all()) for g in gradients(x, x, 0 * x, jnp.float32(KAPPAS)))


def test_float32_agrees_with_float64_also_near_the_boundary_of_the_ball(x64):
    x = points(3, -1.0)
    x *= np.linspace(0.2, 0.995, 6)[:, None] / np.linalg.norm(x, axis=-1, keepdims=True)
    y = x + 1e-3
    exact = stereographic.distance(jnp.asarray(x), jnp.asarray(y), -1.0)
    rough = stereographic.distance(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), -1.0)
    assert exact.dtype == jnp.float64 and rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, exact, rtol=5e-4)


def test_points_outside_of_the_ball_come_back_into_it_and_others_stay():
    x = jnp.array([[3.0, 4.0], [0.1, 0.2]])
    np.testing.assert_allclose(jnp.linalg.norm(stereographic.project(x, -1.0)[0]), 1 - 4e-3, rtol=1e-6)
    assert (stereographic.project(x, -1.0)[1] == x[1]).all()
    assert (stereographic.project(x, 1.0) == x).all()


def test_the_midpoint_of_two_points_is_half_way_on_their_geodesic_also_across_a_sphere(x64):
    for kappa in (-0.9, 0.0, 0.9):
        x, y = jnp.array([0.3, 0.9]), jnp.array([-0.8, 0.4])
        middle = stereographic.gyromidpoint(jnp.stack([x, y]), jnp.ones(2), kappa)
        expected = stereographic.exp(x, stereographic.log(x, y, kappa) / 2, kappa)
        np.testing.assert_allclose(middle, expected, rtol=1e-6)
    far = jnp.array([[30.0, 1.0], [30.0, -1.0]])  # both near the antipode, where the formula of the paper flips
    middle = stereographic.gyromidpoint(far, jnp.ones(2), 1.0)
    assert stereographic.distance(middle, far[0], 1.0) < 0.1
