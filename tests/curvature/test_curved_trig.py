import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.curvature import curved_trig

SPHERE = {
    "tan_ratio": lambda r: np.tan(r) / r,
    "arctan_ratio": lambda r: np.arctan(r) / r,
    "sin_ratio": lambda r: np.sin(r) / r,
    "cos": np.cos,
}
HYPERBOLIC = {
    "tan_ratio": lambda r: np.tanh(r) / r,
    "arctan_ratio": lambda r: np.arctanh(r) / r,
    "sin_ratio": lambda r: np.sinh(r) / r,
    "cos": np.cosh,
}


@pytest.mark.parametrize("name", SPHERE)
def test_functions_are_those_of_numpy_on_both_sides_of_zero_and_one_at_it(name, x64):
    roots = np.array([1e-6, 1e-3, 0.02, 0.0316, 0.0317, 0.1, 0.5, 0.9])
    function = getattr(curved_trig, name)
    np.testing.assert_allclose(function(jnp.asarray(roots**2)), SPHERE[name](roots), rtol=1e-13)
    np.testing.assert_allclose(function(jnp.asarray(-(roots**2))), HYPERBOLIC[name](roots), rtol=1e-13)
    assert function(jnp.zeros(())) == 1


@pytest.mark.parametrize("name", SPHERE)
def test_gradients_are_those_of_finite_differences_across_zero(name, x64):
    function, h = getattr(curved_trig, name), 1e-6
    z = jnp.array([-0.8, -1e-2, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 1e-2, 0.8])
    expected = (function(z + h) - function(z - h)) / (2 * h)
    found = jax.vmap(jax.grad(function))(z)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_large_arguments_of_one_sign_leave_no_nan_in_the_gradient_of_the_other():
    z = jnp.array([-1e6, 1e6], jnp.float32)
    for name in ("tan_ratio", "arctan_ratio"):
        assert jnp.isfinite(jax.vmap(jax.grad(getattr(curved_trig, name)))(z)).all()


def test_lengths_by_half_chords_are_those_of_numpy_and_have_their_slopes(x64):
    q = jnp.array([1e-12, 1e-4, 0.3, 0.99])
    lengths = {1.0: 2 * np.arcsin(np.sqrt(q)), 0.0: 2 * np.sqrt(q), -1.0: 2 * np.arcsinh(np.sqrt(q))}
    for sign, expected in lengths.items():
        np.testing.assert_allclose(curved_trig.twice_arcsin(q, jnp.float64(sign)), expected, rtol=1e-12)
        slope = jax.vmap(jax.grad(lambda v, s=sign: curved_trig.twice_arcsin(v, jnp.float64(s))))(q)
        np.testing.assert_allclose(slope, 1 / np.sqrt(q * (1 - sign * q)), rtol=1e-12)
    assert jax.grad(lambda v: curved_trig.twice_arcsin(v, jnp.float64(1.0)))(jnp.zeros(())) == 0
