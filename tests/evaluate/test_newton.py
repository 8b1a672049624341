import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.evaluate.newton import minimize


def _second_order(function):
    return lambda x: (function(x), jax.grad(function)(x), jax.hessian(function)(x))


def test_a_quadratic_is_minimised_at_the_solution_of_its_linear_system():
    matrix = jnp.array([[3.0, 1.0], [1.0, 2.0]])
    right = jnp.array([1.0, -4.0])
    function = _second_order(lambda x: 0.5 * x @ matrix @ x - right @ x)
    output = minimize(function, jnp.zeros(2), tolerance=jnp.asarray(1e-5), max_iterations=50, max_step=10.0)
    assert output.converged
    np.testing.assert_allclose(output.x, [6 / 5, -13 / 5], rtol=1e-5)


def test_a_flat_direction_does_no_harm():
    target = jnp.array([0.2, 0.3, 0.5])
    function = _second_order(lambda x: jax.nn.logsumexp(x) - target @ x)
    output = minimize(function, jnp.zeros(3), tolerance=jnp.asarray(1e-6), max_iterations=50, max_step=5.0)
    assert output.converged
    np.testing.assert_allclose(jax.nn.softmax(output.x), target, atol=1e-6)


def test_a_step_out_of_the_domain_is_refused():
    def barrier(x):
        inside = x[0] > 0
        return jnp.where(inside, 1e-3 * x[0] - jnp.log(jnp.where(inside, x[0], 1)), jnp.inf)

    output = minimize(
        _second_order(barrier), jnp.array([3000.0]), tolerance=jnp.asarray(1e-8), max_iterations=100, max_step=1e4
    )
    assert output.converged
    np.testing.assert_allclose(output.x, [1000.0], rtol=1e-3)


def test_an_unbounded_descent_is_reported_as_not_converged():
    function = _second_order(lambda x: -x.sum())
    output = minimize(function, jnp.zeros(2), tolerance=jnp.asarray(1e-6), max_iterations=7, max_step=1.0)
    assert not output.converged
    assert output.iterations == 7
