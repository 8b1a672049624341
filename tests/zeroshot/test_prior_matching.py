import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy import stats

from tests.zeroshot.matmul_precision import products_of_low_precision
from zsml_jax.zeroshot import label_shift, prior_matching

for backend in ("TENSORFLOW", "PYTORCH", "JAX", "CUPY"):
    os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")


def _problem(n=200, k=5, scale=2.0, seed=0):
    rng = np.random.default_rng(seed)
    scores = scale * (rng.normal(size=(n, k)) + rng.normal(size=k))
    return scores, rng.dirichlet(np.full(k, 2.0))


def _gap(marginal, expected):
    return np.abs(np.asarray(marginal) - expected).sum()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 30.0))
def test_the_mean_prediction_equals_the_label_distribution(seed, scale):
    scores, target = _problem(scale=scale, seed=seed)
    output = prior_matching.match(scores, target)
    assert output.converged
    predictions = jnp.exp(output.log_probs(scores))
    assert _gap(predictions.mean(axis=0), target) < 5e-6
    assert _gap(output.marginal, target) == pytest.approx(float(output.marginal_error), abs=2e-7)
    np.testing.assert_array_equal(output.predict(scores), jnp.argmax(predictions, axis=1))
    assert abs(output.dual.mean()) < 1e-5


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_classes_may_be_permuted_and_rows_shifted(seed):
    scores, target = _problem(seed=seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(5)
    dual = prior_matching.match(scores, target).dual
    shifted = scores + 10 * rng.normal(size=(200, 1))
    permuted = prior_matching.match(shifted[:, order], target[order]).dual
    np.testing.assert_allclose(permuted, dual[order], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_dual_is_that_of_ott_jax_sinkhorn_at_epsilon_one(scale, x64):
    from ott.geometry import geometry
    from ott.solvers import linear

    scores, target = _problem(scale=scale)
    cost = -jax.nn.log_softmax(jnp.asarray(scores))
    transport = linear.solve(
        geometry.Geometry(cost, epsilon=1.0), b=jnp.asarray(target), threshold=1e-10, max_iterations=20_000
    )
    assert transport.converged
    output = prior_matching.match(scores, target, tolerance=1e-10)
    np.testing.assert_allclose(output.dual, transport.g - transport.g.mean(), atol=1e-7)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_plan_is_that_of_pot_sinkhorn_at_a_regularisation_of_one(scale, x64):
    import ot

    scores, target = _problem(scale=scale)
    cost = np.array(-jax.nn.log_softmax(jnp.asarray(scores)))
    plan = ot.bregman.sinkhorn_log(np.full(200, 1 / 200), target, cost, reg=1.0, numItermax=20_000, stopThr=1e-12)
    output = prior_matching.match(scores, target, tolerance=1e-10)
    np.testing.assert_allclose(jnp.exp(output.log_probs(scores)) / 200, plan, atol=1e-9)


def test_one_example_has_a_closed_form():
    target = np.array([0.1, 0.2, 0.7])
    log_probs = np.log([[0.5, 0.3, 0.2]])
    expected = np.log(target) - log_probs[0]
    output = prior_matching.match(log_probs, target)
    np.testing.assert_allclose(output.dual, expected - expected.mean(), atol=1e-5)


def test_the_mean_prediction_itself_asks_for_no_shift():
    scores, _ = _problem()
    output = prior_matching.match(scores, np.asarray(jax.nn.softmax(jnp.asarray(scores))).mean(axis=0))
    np.testing.assert_allclose(output.dual, 0, atol=1e-4)


# Accuracies of the specification's table: N(-1, 1) against N(1, 1), source positive rate 0.9, exact posteriors.
@pytest.mark.parametrize(
    ("rate", "naive", "bayes"), [(0.9, 0.9286, 0.9286), (0.3, 0.6146, 0.8607), (0.15, 0.5363, 0.9089)]
)
def test_calibrated_posteriors_become_those_of_bayes(rate, naive, bayes):
    rng = np.random.default_rng(0)
    labels = (rng.uniform(size=20_000) < rate).astype(int)
    x = rng.normal(size=20_000) + 2 * labels - 1
    likelihoods = np.stack([stats.norm.logpdf(x, -1), stats.norm.logpdf(x, 1)], axis=1)
    source, target = np.array([0.1, 0.9]), np.array([1 - rate, rate])
    posteriors = likelihoods + np.log(source)
    output = prior_matching.match(posteriors, target)
    by_bayes = label_shift.reweight(posteriors, source, target)
    sampling_error = 3 * np.sqrt(0.25 / 20_000)
    assert np.mean(np.argmax(posteriors, axis=1) == labels) == pytest.approx(naive, abs=sampling_error)
    assert np.mean(output.predict(posteriors) == labels) == pytest.approx(bayes, abs=sampling_error)
    assert np.mean(np.argmax(by_bayes, axis=1) == labels) == pytest.approx(bayes, abs=sampling_error)
    # The fixed point is log(target / source) up to the sampling error of 20,000 labels.
    expected = np.log(target / source)
    np.testing.assert_allclose(output.dual, expected - expected.mean(), atol=0.05)


def test_integer_weights_mean_repeated_examples():
    scores, target = _problem()
    weights = np.random.default_rng(0).integers(0, 4, 200)
    weighted = prior_matching.match(scores, target, sample_weights=weights.astype(np.float32))
    repeated = prior_matching.match(np.repeat(scores, weights, axis=0), target)
    np.testing.assert_allclose(weighted.dual, repeated.dual, atol=1e-4)


@pytest.mark.slow
def test_the_derivative_is_that_of_finite_differences(x64):
    scores, target = _problem(n=30, k=4)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, 30)

    def dual(scores, target, weights):
        return prior_matching.match(scores, target / target.sum(), sample_weights=weights, tolerance=1e-13).dual

    arguments = (jnp.asarray(scores), jnp.asarray(target), jnp.asarray(weights))
    check_grads(dual, arguments, order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4, eps=1e-4)


def test_jit_and_vmap_over_label_distributions_equal_a_loop():
    scores, _ = _problem()
    targets = np.random.default_rng(0).dirichlet(np.ones(5), size=4).astype(np.float32)
    batched = jax.jit(jax.vmap(lambda target: prior_matching.match(scores, target)))(targets)
    assert batched.converged.all()
    for row, target in enumerate(targets):
        np.testing.assert_allclose(batched.dual[row], prior_matching.match(scores, target).dual, atol=1e-4)


def test_a_class_of_probability_zero_is_never_predicted():
    scores, _ = _problem()
    target = np.array([0.5, 0.0, 0.3, 0.2, 0.0])
    output = prior_matching.match(scores, target)
    assert output.converged
    np.testing.assert_array_equal(np.isneginf(output.dual), target == 0)
    assert np.isin(output.predict(scores), [0, 2, 3]).all()
    gradient = jax.grad(lambda s: jnp.where(target > 0, prior_matching.match(s, target).dual, 0)[0])(scores)
    assert jnp.isfinite(gradient).all()


def test_impossible_scores_that_leave_a_solution_are_met():
    scores, _ = _problem()
    scores[:50, 0] = -np.inf
    output = prior_matching.match(scores, np.full(5, 0.2))
    assert output.converged
    assert (output.predict(scores)[:50] != 0).all()


@pytest.mark.parametrize("target", [[0.9, 0.1, 0.0, 0.0, 0.0], [0.6, 0.1, 0.1, 0.1, 0.1]])
def test_a_label_distribution_out_of_reach_is_reported_and_not_a_nan(target):
    scores, _ = _problem()
    scores[:150, 0] = -np.inf  # class 0 can hold a quarter at most
    output = prior_matching.match(scores, np.array(target))
    assert not output.converged
    assert not jnp.isnan(output.dual).any()
    assert output.marginal_error > 0.1


def test_an_example_without_a_possible_class_is_reported_and_not_a_nan():
    output = prior_matching.match(np.array([[0.0, -np.inf], [-np.inf, 0.0], [0.0, 0.0]]), np.array([1.0, 0.0]))
    assert not output.converged
    np.testing.assert_allclose(output.marginal, [2 / 3, 0])


def test_the_second_call_does_not_trace_again():
    scores, target = _problem(n=37)
    prior_matching.match(scores, target)
    size = prior_matching._match._cache_size()
    prior_matching.match(scores + 1, np.roll(target, 1), tolerance=1e-5)
    assert prior_matching._match._cache_size() == size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_probs": np.array([[0.0, np.nan]])}, "log_probs must hold neither NaN"),
        ({"log_probs": np.zeros((0, 2), np.float32)}, "log_probs must have shape"),
        ({"label_distribution": np.array([0.7, 0.7])}, "label_distribution must sum to 1"),
        ({"label_distribution": np.array([1.0])}, r"label_distribution must have shape \(2,\)"),
        ({"sample_weights": np.array([-1.0])}, "sample_weights must not be negative"),
        ({"tolerance": float("nan")}, "tolerance must be non-negative and finite"),
    ],
)
def test_unsound_input_is_refused_by_name(change, message, unchecked_types):
    arguments = {"log_probs": np.zeros((1, 2)), "label_distribution": np.array([0.5, 0.5])} | change
    with pytest.raises(ValueError, match=message):
        prior_matching.match(**arguments)


def test_no_matrix_product_is_left_to_an_accelerators_low_precision():
    scores, target = _problem(n=20)
    dual = lambda scores: prior_matching.match(scores, target).dual
    for function in (dual, jax.jacrev(dual)):
        products, low = products_of_low_precision(function, jnp.asarray(scores))
        assert products > 0
        assert low == 0


@pytest.mark.parametrize("seed", [41, 554])
def test_scores_so_sharp_that_predictions_are_all_but_certain_still_converge(seed):
    rng = np.random.default_rng(seed)
    scores = 80 * (rng.normal(size=(3000, 60)) + rng.normal(size=60))
    output = prior_matching.match(scores, rng.dirichlet(np.ones(60)))
    assert output.converged
    assert output.iterations > prior_matching._SINKHORN_PASSES  # which leave the rest to Newton's method
