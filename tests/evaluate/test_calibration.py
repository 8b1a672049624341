"""Expected numbers come from scikit-learn; the expected calibration error also from a direct loop over the bins."""

import jax
import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics as sk

from zsml_jax import evaluate

N, K = 400, 4


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(N, K))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(K, p=p) for p in 0.7 * probs + 0.3 / K])
    return labels, probs.astype(np.float32), rng.uniform(0.1, 2.0, size=N).astype(np.float32)


def test_likelihood_and_brier_score_agree_with_scikit_learn(problem):
    labels, probs, weights = problem
    nll = evaluate.negative_log_likelihood(labels, np.log(probs), weights=weights)
    exact = probs.astype(np.float64) / probs.astype(np.float64).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(nll, sk.log_loss(labels, exact, sample_weight=weights), rtol=1e-6)
    brier = sk.brier_score_loss(labels, exact, sample_weight=weights, scale_by_half=False)
    np.testing.assert_allclose(evaluate.brier_score(labels, probs, weights=weights), brier, rtol=1e-6)


@pytest.mark.parametrize(("binning", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
def test_reliability_bins_agree_with_scikit_learn(problem, binning, strategy):
    labels, probs, _ = problem
    diagram = evaluate.reliability(labels, probs, n_bins=8, binning=binning)
    correct, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1)
    accuracy, mean_confidence = sklearn.calibration.calibration_curve(correct, confidence, n_bins=8, strategy=strategy)
    filled = np.asarray(diagram.weight) > 0
    np.testing.assert_allclose(diagram.accuracy[filled], accuracy, rtol=1e-5)
    np.testing.assert_allclose(diagram.confidence[filled], mean_confidence, rtol=1e-5)


@pytest.mark.parametrize("binning", ["equal_width", "equal_mass"])
def test_calibration_error_is_the_weighted_gap_of_the_bins(problem, binning):
    labels, probs, weights = problem
    correct, confidence = probs.argmax(axis=1) == labels, probs.max(axis=1).astype(np.float64)
    if binning == "equal_width":
        bins = np.ceil(confidence * 10).astype(int) - 1
    else:
        order = np.argsort(confidence)
        share = weights.astype(np.float64)[order] / weights.sum(dtype=np.float64)
        bins = np.empty(N, int)
        bins[order] = np.floor((np.cumsum(share) - share / 2) * 10)
    expected = sum(
        weights[m].sum() / weights.sum() * abs(np.average(correct[m].astype(float) - confidence[m], weights=weights[m]))
        for m in (bins == b for b in range(10))
        if m.any()
    )
    ece = evaluate.expected_calibration_error(labels, probs, n_bins=10, binning=binning, weights=weights)
    np.testing.assert_allclose(ece, expected, atol=1e-6)


def test_a_certain_and_right_classifier_has_no_error_of_any_kind():
    labels = np.array([0, 1, 2, 1])
    probs = np.eye(3, dtype=np.float32)[labels]
    assert evaluate.expected_calibration_error(labels, probs) == 0
    assert evaluate.brier_score(labels, probs) == 0
    with np.errstate(divide="ignore"):
        assert evaluate.negative_log_likelihood(labels, np.log(probs)) == 0
    assert evaluate.expected_calibration_error((labels + 1) % 3, probs) == 1
    assert evaluate.brier_score((labels + 1) % 3, probs) == 2


def test_a_temperature_can_be_tuned_by_the_gradient_of_the_likelihood(problem):
    labels, probs, _ = problem
    loss = lambda t: evaluate.negative_log_likelihood(labels, jax.nn.log_softmax(np.log(probs) * t))
    step = 1e-2
    np.testing.assert_allclose(jax.grad(loss)(0.7), (loss(0.7 + step) - loss(0.7 - step)) / (2 * step), rtol=1e-2)


def test_calibration_runs_under_jit_and_vmap_with_the_eager_result(problem):
    labels, probs, _ = problem
    stacked = np.stack([probs, np.roll(probs, 1, axis=1), np.full_like(probs, 1 / K)])
    for metric in (evaluate.brier_score, evaluate.expected_calibration_error):
        mapped = jax.jit(jax.vmap(lambda p, f=metric: f(labels, p)))(stacked)
        np.testing.assert_allclose(mapped, [metric(labels, p) for p in stacked], rtol=1e-5)


def test_bad_input_is_refused_by_name(unchecked_types, problem):
    labels, probs, _ = problem
    with pytest.raises(ValueError, match="probs must hold non-negative rows that sum to 1 within 0.01; row 0"):
        evaluate.expected_calibration_error(labels, 2 * probs)
    with pytest.raises(ValueError, match="probs must hold floats"):
        evaluate.brier_score(labels, np.ones((N, K), int))
    with pytest.raises(ValueError, match="labels must lie between 0 and 3, got 4"):
        evaluate.brier_score(labels + 1, probs)
    with pytest.raises(ValueError, match="log_probs must not hold NaN; row 0"):
        evaluate.negative_log_likelihood(labels, np.full((N, K), np.nan))
    with pytest.raises(ValueError, match="binning must be"):
        evaluate.reliability(labels, probs, binning="quantile")
    with pytest.raises(ValueError, match="n_bins must be at least 1, got 0"):
        evaluate.reliability(labels, probs, n_bins=0)
