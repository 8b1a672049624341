import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn

from tests.zeroshot.transport_problems import frequencies, scores, sinkhorn_plan
from zsml_jax.zeroshot import otter
from zsml_jax.zeroshot.transport import row_blocks, semidual


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.03])
def test_the_entropic_plan_is_that_of_pot(epsilon):
    log_probs, labels = scores(500, 6, 0)
    nu = frequencies(labels, 6)
    fitted = otter.solve(log_probs, nu, epsilon=epsilon, tolerance=1e-11)
    plan = np.asarray(jax.nn.softmax((log_probs + fitted.dual) / epsilon, axis=1)) / 500
    oracle = sinkhorn_plan(log_probs, nu, epsilon)
    np.testing.assert_allclose(plan, oracle, atol=1e-9)
    assert fitted.cost == pytest.approx(-np.sum(oracle * log_probs), rel=1e-7)
    assert fitted.converged
    assert fitted.duality_gap < 1e-9


def test_the_entropic_plan_is_that_of_ott():
    log_probs, labels = scores(400, 5, 1)
    nu = frequencies(labels, 5)
    fitted = otter.solve(log_probs, nu, epsilon=0.5)
    geom = geometry.Geometry(cost_matrix=-jnp.asarray(log_probs, jnp.float32), epsilon=0.5)
    problem = linear_problem.LinearProblem(geom, b=jnp.asarray(nu, jnp.float32))
    output = sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=5000)(problem)
    assert output.converged
    plan = jax.nn.softmax((log_probs + fitted.dual) / 0.5, axis=1) / 400
    np.testing.assert_allclose(plan, output.matrix, atol=1e-6)


def test_small_temperatures_approach_the_exact_cost_and_assignment():
    log_probs, labels = scores(1000, 5, 2)
    nu = frequencies(labels, 5)
    exact = otter.solve(log_probs, nu)
    costs = [float(otter.solve(log_probs, nu, epsilon=e, tolerance=1e-4).cost) for e in (1.0, 0.3, 0.1, 0.03)]
    assert np.all(np.diff(costs) < 0)
    assert costs[-1] == pytest.approx(float(exact.cost), rel=1e-3)
    cold = otter.solve(log_probs, nu, epsilon=0.01, tolerance=1e-3)
    assert np.mean(np.asarray(cold.assignment) == np.asarray(exact.assignment)) > 0.99


def test_one_nat_is_bayes_rule_under_label_shift():
    rng = np.random.default_rng(3)
    prior = np.array([0.1, 0.9])
    target = np.array([0.7, 0.3])
    labels = rng.choice(2, 20_000, p=target)
    x = rng.normal(2.0 * labels - 1.0)
    joint = np.log(prior) - 0.5 * (x[:, None] - np.array([-1.0, 1.0])) ** 2
    log_probs = joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)
    fitted = otter.solve(log_probs, frequencies(labels, 2), epsilon=1.0)
    wanted = np.log(target / prior)
    assert fitted.dual[1] - fitted.dual[0] == pytest.approx(wanted[1] - wanted[0], abs=0.05)
    bayes = (log_probs + wanted).argmax(1)
    assert np.mean(np.asarray(fitted.assignment) == bayes) > 0.995


def test_a_weak_penalty_leaves_the_predictions_and_a_strong_one_enforces_the_distribution():
    log_probs, labels = scores(1000, 6, 4, shift=2.0)
    nu = frequencies(labels, 6)
    strict = otter.solve(log_probs, nu, epsilon=0.2)
    strong = otter.solve(log_probs, otter.Near(nu, 1e4), epsilon=0.2)
    weak = otter.solve(log_probs, otter.Near(nu, 1e-4), epsilon=0.2)
    np.testing.assert_allclose(strong.dual - strong.dual.mean(), strict.dual, atol=2e-3)
    np.testing.assert_array_equal(weak.assignment, log_probs.argmax(1))
    penalties = [0.01, 0.1, 1.0, 10.0]
    errors = [_mass_error(log_probs, nu, otter.solve(log_probs, otter.Near(nu, p), epsilon=0.2)) for p in penalties]
    assert np.all(np.diff(errors) < 0)


def _mass_error(log_probs, nu, fitted):
    plan = jax.nn.softmax((log_probs + fitted.dual) / 0.2, axis=1)
    return float(np.abs(plan.mean(0) - nu).sum())


def test_entropic_masses_stay_inside_their_intervals():
    log_probs, labels = scores(1000, 6, 5, shift=2.0)
    nu = frequencies(labels, 6)
    fitted = otter.solve(log_probs, otter.Between(0.9 * nu, 1.2 * nu), epsilon=0.3)
    mass = np.asarray(jax.nn.softmax((log_probs + fitted.dual) / 0.3, axis=1).mean(0))
    assert fitted.converged
    assert np.all(mass > 0.9 * nu - 1e-5)
    assert np.all(mass < 1.2 * nu + 1e-5)
    inside = (mass > 0.9 * nu + 1e-4) & (mass < 1.2 * nu - 1e-4)
    np.testing.assert_allclose(np.asarray(fitted.dual)[inside], 0.0, atol=1e-3)


@pytest.mark.slow
def test_blocks_of_rows_sum_to_the_whole(monkeypatch):
    log_probs, labels = scores(1003, 5, 6)
    nu = frequencies(labels, 5)
    whole = otter.solve(log_probs, nu, epsilon=0.4)
    monkeypatch.setattr(row_blocks, "BLOCK_ENTRIES_CPU", 500)
    semidual._iterate.clear_cache()
    in_blocks = otter.solve(log_probs, nu, epsilon=0.4)
    semidual._iterate.clear_cache()
    np.testing.assert_allclose(in_blocks.dual, whole.dual, atol=1e-4)
    np.testing.assert_allclose(in_blocks.cost, whole.cost, rtol=1e-5)


@pytest.mark.slow
def test_jit_vmap_and_a_loop_agree_over_distributions_temperatures_and_problems():
    problems = jnp.stack([scores(200, 4, seed)[0] for seed in range(3)]).astype(jnp.float32)
    nus = jnp.asarray(np.random.default_rng(0).dirichlet(np.full(4, 5.0), size=3), jnp.float32)
    epsilons = jnp.array([0.2, 0.5, 1.0])

    def fit(log_probs, nu, epsilon):
        return otter.solve(log_probs, nu, epsilon=epsilon, tolerance=1e-6)

    batched = jax.jit(jax.vmap(fit))(problems, nus, epsilons)
    looped = [fit(*arguments) for arguments in zip(problems, nus, epsilons, strict=True)]
    np.testing.assert_allclose(batched.dual, jnp.stack([x.dual for x in looped]), atol=1e-4)
    np.testing.assert_array_equal(batched.assignment, jnp.stack([x.assignment for x in looped]))
    over_nu = jax.vmap(fit, in_axes=(None, 0, None))(problems[0], nus, 0.5)
    np.testing.assert_allclose(over_nu.dual[1], fit(problems[0], nus[1], 0.5).dual, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "make_marginal",
    [
        pytest.param(otter.Exactly, id="exactly", marks=pytest.mark.slow),
        pytest.param(lambda nu: otter.Near(nu, 0.5 * nu.sum()), id="near"),
        pytest.param(lambda nu: otter.Between(0.9 * nu, 1.05 * nu), id="between"),
    ],
)
def test_implicit_derivatives_match_finite_differences(make_marginal):
    log_probs, labels = scores(60, 4, 7, shift=2.0)
    arguments = (
        jnp.asarray(log_probs),
        jnp.asarray(frequencies(labels, 4)),
        jnp.asarray(0.4),
        jnp.full(60, 1 / 60),
    )

    def loss(log_probs, nu, epsilon, weights):
        fitted = otter.solve(
            log_probs, make_marginal(nu), epsilon=epsilon, sample_weights=weights, tolerance=1e-13, max_iterations=5000
        )
        return jnp.dot(fitted.dual, jnp.arange(4.0)) + fitted.cost

    rng = np.random.default_rng(8)
    directions = tuple(jnp.asarray(rng.normal(size=np.shape(x))) for x in arguments)
    directions = (directions[0], directions[1] - directions[1].mean(), directions[2], directions[3])
    step = 1e-5
    ahead = loss(*(x + step * d for x, d in zip(arguments, directions, strict=True)))
    behind = loss(*(x - step * d for x, d in zip(arguments, directions, strict=True)))
    reverse = jax.grad(loss, argnums=(0, 1, 2, 3))(*arguments)
    projected = sum(jnp.vdot(g, d) for g, d in zip(reverse, directions, strict=True))
    _, forward = jax.jvp(loss, arguments, directions)
    np.testing.assert_allclose(projected, (ahead - behind) / (2 * step), rtol=1e-4)
    np.testing.assert_allclose(forward, projected, rtol=1e-8)


def test_a_second_call_does_not_retrace():
    log_probs, labels = scores(100, 3, 9)
    nu = jnp.asarray(frequencies(labels, 3))
    fit = jax.jit(chex.assert_max_traces(lambda x, nu, e: otter.solve(x, nu, epsilon=e), n=1))
    for epsilon in (1.0, 0.5, 0.1):
        fit(log_probs, nu, jnp.float32(epsilon))


def test_a_warm_start_takes_fewer_passes():
    log_probs, labels = scores(2000, 10, 10)
    nu = frequencies(labels, 10)
    cold = otter.solve(log_probs, nu, epsilon=1.0)
    warm = otter.solve(log_probs, nu, epsilon=1.0, initial_dual=cold.dual)
    assert warm.n_iterations < cold.n_iterations


def test_too_few_iterations_are_reported():
    log_probs, labels = scores(500, 10, 11, shift=3.0)
    fitted = otter.solve(log_probs, frequencies(labels, 10), epsilon=0.01, max_iterations=3)
    assert not fitted.converged
    assert fitted.marginal_error > 1e-3


@pytest.mark.slow
def test_the_semidual_is_largest_at_the_solution():
    log_probs, labels = scores(300, 4, 12)
    log_probs, nu = jnp.asarray(log_probs, jnp.float32), jnp.asarray(frequencies(labels, 4), jnp.float32)
    weights = jnp.full(300, 1 / 300)
    dual = otter.solve(log_probs, nu, epsilon=0.5, tolerance=1e-6).dual

    def value(g):
        return jnp.dot(nu, g) - semidual.evaluate(log_probs, weights, g, 0.5, nu > 0).potential

    np.testing.assert_allclose(jax.grad(value)(dual), 0.0, atol=1e-6)
    nearby = dual + 0.05 * jax.random.normal(jax.random.key(0), (20, 4))
    assert jnp.all(jax.vmap(value)(nearby) < value(dual))


@pytest.mark.slow
def test_class_masses_keep_the_digits_of_float32():
    rng = np.random.default_rng(9)
    log_probs = (40 * (rng.normal(size=(1000, 20)) + np.linspace(0, 4, 20))).astype(np.float32)
    exact = np.exp(log_probs.astype(np.float64) - log_probs.max(axis=1, keepdims=True))
    exact = (exact / exact.sum(axis=1, keepdims=True)).mean(axis=0)
    weights, everyone = np.full(1000, 1e-3, np.float32), np.ones(20, bool)
    mass = jax.jit(semidual.class_mass)(log_probs, weights, np.zeros(20, np.float32), 1.0, everyone)
    assert np.abs(mass - exact).sum() < 2e-7  # one running sum is off by 5e-7
