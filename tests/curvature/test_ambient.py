"""Hyperboloid, Euclidean space and sphere in one set of formulas: geoopt and geomstats, and closed forms."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.curvature import ambient, stereographic

SIGNS = np.array([-1.0, 0.0, 1.0])


def points(seed, sign, n=6, d=3, scale=0.7):
    u = scale * np.random.default_rng(seed).normal(size=(n, d))
    return ambient.lift(jnp.asarray(u), jnp.full(n, sign, float))


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["Lorentz", "Sphere"])
def test_every_operation_is_that_of_geoopt(name, x64):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="needs the oracle extra")
        geoopt = pytest.importorskip("geoopt", reason="needs the oracle extra")
    manifold, sign = getattr(geoopt, name)(), -1.0 if name == "Lorentz" else 1.0
    x, y = points(0, sign), points(1, sign)
    v = ambient.tangent(x, points(2, sign), sign)
    tx, ty, tv = (torch.tensor(np.asarray(a)) for a in (x, y, v))
    pairs = {
        "distance": (ambient.distance(x, y, sign), manifold.dist(tx, ty)),
        "exp": (ambient.exp(x, v, sign), manifold.expmap(tx, tv)),
        "log": (ambient.log(x, y, sign), manifold.logmap(tx, ty)),
        "gradient": (ambient.riemannian_gradient(x, y, sign), manifold.egrad2rgrad(tx.clone(), ty.clone())),
    }
    if name == "Lorentz":  # geoopt's sphere transports by projection, which keeps no lengths
        pairs["transport"] = (ambient.transport(x, y, v, sign), manifold.transp(tx, ty, tv))
    for what, (ours, theirs) in pairs.items():
        # geoopt's distances go through the inner product, whose cosine has half of the digits.
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-7, err_msg=what)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "sign"), [("hyperboloid.Hyperboloid", -1.0), ("hypersphere.Hypersphere", 1.0)])
def test_every_operation_is_that_of_geomstats(name, sign, geomstats, x64):
    del geomstats
    module, _, name = name.partition(".")
    space = getattr(importlib.import_module(f"geomstats.geometry.{module}"), name)(3)
    metric = space.metric
    jx, jy = points(0, sign), points(1, sign)
    jv = ambient.tangent(jx, points(2, sign), sign)
    x, y, v = map(np.asarray, (jx, jy, jv))
    assert space.belongs(x, atol=1e-9).all() and space.is_tangent(v, x, atol=1e-9).all()
    pairs = {
        "distance": (ambient.distance(jx, jy, sign), metric.dist(x, y)),
        "inner": (ambient.inner(jv, ambient.log(jx, jy, sign), sign), metric.inner_product(v, metric.log(y, x), x)),
        "exp": (ambient.exp(jx, jv, sign), metric.exp(v, x)),
        "log": (ambient.log(jx, jy, sign), metric.log(y, x)),
        "tangent": (ambient.tangent(jx, jy, sign), space.to_tangent(y, x)),
        "transport": (ambient.transport(jx, jy, jv, sign), metric.parallel_transport(v, x, end_point=y)),
    }
    for what, (ours, theirs) in pairs.items():
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=what)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 0.3, 1.0]))
def test_logarithms_undo_exponentials_and_distances_obey_the_triangle_inequality(seed, scale):
    sign = jnp.asarray(SIGNS, jnp.float32)[:, None]
    u = scale * np.random.default_rng(seed).normal(size=(3, 3, 5, 2)).astype(np.float32)
    x, y, z = (ambient.lift(jnp.asarray(a), sign) for a in u)
    again = ambient.exp(x, ambient.log(x, y, sign), sign)
    np.testing.assert_allclose(again, y, rtol=1e-3, atol=1e-3 * scale)
    to = lambda a, b: ambient.distance(a, b, sign)
    np.testing.assert_array_less(to(x, z), to(x, y) + to(y, z) + 1e-5)
    v = ambient.log(x, z, sign)
    moved = ambient.transport(x, y, v, sign)
    np.testing.assert_allclose(
        ambient.inner(moved, moved, sign), ambient.inner(v, v, sign), rtol=2e-2, atol=1e-3 * scale**2
    )


def test_points_of_the_hyperboloid_stay_where_float32_has_digits(key):
    x = ambient.lift(jax.random.normal(key, (50, 3)), jnp.float32(-1))
    for _ in range(30):
        v = ambient.tangent(x, x + jax.random.normal(key, x.shape), jnp.float32(-1))
        y = ambient.exp(x, 5 * v / jnp.sqrt(ambient.squared_length(x, v, -1.0))[:, None], jnp.float32(-1))
        moved = ambient.tangent(y, ambient.transport(x, y, v, jnp.float32(-1)), jnp.float32(-1))
        np.testing.assert_allclose(ambient.inner(y, y, -1.0), -1, atol=0.25)
        ratio = ambient.squared_length(y, moved, -1.0) / ambient.squared_length(x, v, -1.0)
        assert np.isfinite(moved).all() and ratio.max() < 10
        x = y
    out = np.arcsinh(np.linalg.norm(x[:, 1:], axis=1))
    assert out.max() <= ambient.farthest(jnp.float32) * (1 + 1e-6)
    assert np.median(out) > 0.9 * ambient.farthest(jnp.float32)


def test_distances_are_the_closed_forms_along_a_geodesic_through_the_origin(x64):
    t = jnp.array([1e-8, 1e-3, 1.0, 3.0])
    for sign in SIGNS:
        x = ambient.lift(jnp.stack([t, 0 * t], -1), jnp.full(4, sign))
        np.testing.assert_allclose(ambient.distance(x, ambient.origin(2, sign), sign), t, rtol=1e-9)


def test_the_antipode_of_a_sphere_is_pi_away():
    o = ambient.origin(2, 1.0)
    np.testing.assert_allclose(ambient.distance(o, -o, 1.0), np.pi, rtol=1e-6)
    assert jnp.isfinite(jax.grad(lambda x: ambient.distance(x, -o, 1.0))(o)).all()


def test_two_representations_measure_the_same_distance():
    for sign in SIGNS:
        x, y = points(3, sign), points(4, sign)
        flat = [ambient.to_stereographic(p, jnp.full(6, sign)) for p in (x, y)]
        np.testing.assert_allclose(
            stereographic.distance(*flat, sign), ambient.distance(x, y, sign), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(ambient.from_stereographic(flat[0], jnp.full(6, sign)), x, rtol=1e-4, atol=1e-6)


def test_projection_returns_points_of_the_space_and_keeps_those_that_are():
    for sign in SIGNS:
        x = ambient.project(jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32), sign)
        np.testing.assert_allclose(ambient.inner(x, x, sign), sign if sign else (x[:, 1:] ** 2).sum(-1), rtol=1e-5)
        np.testing.assert_allclose(ambient.project(x, sign), x, rtol=1e-6)
    np.testing.assert_array_equal(ambient.project(jnp.zeros(3), 1.0), jnp.array([1.0, 0.0, 0.0]))


def test_the_logarithm_at_the_origin_undoes_lifting():
    u = jnp.asarray(np.random.default_rng(5).normal(size=(6, 3)), jnp.float32) / 3
    for sign in SIGNS:
        np.testing.assert_allclose(ambient.lower(ambient.lift(u, jnp.full(6, sign)), sign), u, rtol=1e-3, atol=1e-5)
