import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zeroshot.matmul_precision import products_of_low_precision
from zsml_jax.evaluate import calibrators

FITS = {
    "temperature": calibrators.fit_temperature,
    "bias_corrected": calibrators.fit_bias_corrected_temperature,
    "vector": calibrators.fit_vector_scaling,
}


def _miscalibrated(n, k, *, temperature, seed=0, bias=1.0):
    """Scores that are the true log-posteriors less a bias per class, times ``temperature``; labels; the bias."""
    rng = np.random.default_rng(seed)
    scores = 2 * rng.normal(size=(n, k))
    biases = bias * rng.normal(size=k)
    gumbel = rng.gumbel(size=(n, k))
    return scores * temperature, np.argmax(scores + biases + gumbel, axis=1), biases - biases.mean()


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_bias_correction_recovers_the_temperature_and_the_bias_that_made_the_labels(temperature):
    scores, labels, bias = _miscalibrated(40_000, 4, temperature=temperature)
    fitted = calibrators.fit_bias_corrected_temperature(scores, labels)
    assert fitted.converged
    np.testing.assert_allclose(fitted.temperature, temperature, rtol=0.03)
    np.testing.assert_allclose(fitted.bias, bias, atol=0.06)


def test_vector_scaling_recovers_one_scale_per_class():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(40_000, 3))
    scores -= scores.mean(axis=1, keepdims=True)
    scale = np.array([0.5, 1.0, 2.0])
    labels = np.argmax(scale * scores + rng.gumbel(size=scores.shape), axis=1)
    fitted = calibrators.fit_vector_scaling(scores, labels)
    assert fitted.converged
    np.testing.assert_allclose(fitted.scale, scale, atol=0.06)


def test_two_scores_of_one_size_have_the_temperature_of_their_hit_rate():
    # Scores (m, 0) with a hit rate h: sigmoid(m / temperature) = h.
    labels = np.array([0] * 8 + [1] * 2)
    fitted = calibrators.fit_temperature(np.tile([3.0, 0.0], (10, 1)), labels)
    np.testing.assert_allclose(fitted.temperature, 3 / np.log(0.8 / 0.2), rtol=1e-4)
    np.testing.assert_allclose(fitted.nll, -(0.8 * np.log(0.8) + 0.2 * np.log(0.2)), rtol=1e-6)


@pytest.mark.parametrize("name", ["bias_corrected", "vector"])
def test_with_a_bias_the_mean_prediction_equals_the_label_frequencies(name):
    scores, labels, _ = _miscalibrated(500, 5, temperature=3.0)
    fitted = FITS[name](scores, labels)
    mean = jnp.exp(fitted.log_probs(scores)).mean(axis=0)
    np.testing.assert_allclose(mean, np.bincount(labels, minlength=5) / 500, atol=1e-5)


@pytest.mark.parametrize("name", FITS)
def test_no_other_parameters_have_a_smaller_loss(name):
    scores, labels, _ = _miscalibrated(300, 3, temperature=2.0)
    fitted = FITS[name](scores, labels)

    def nll(scale, bias):
        log_probs = fitted._replace(scale=scale, bias=bias).log_probs(scores)
        return float(-log_probs[np.arange(300), labels].mean())

    np.testing.assert_allclose(nll(fitted.scale, fitted.bias), fitted.nll, rtol=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        scale = fitted.scale + 0.1 * rng.normal(size=np.shape(fitted.scale))
        bias = fitted.bias + (0 if name == "temperature" else 0.1 * rng.normal(size=3))
        assert nll(jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)) > fitted.nll


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_integer_weights_mean_repeated_examples(name):
    scores, labels, _ = _miscalibrated(60, 3, temperature=2.0)
    weights = np.random.default_rng(0).integers(0, 3, 60)
    weighted = FITS[name](scores, labels, sample_weights=weights.astype(np.float32))
    repeated = FITS[name](np.repeat(scores, weights, axis=0), np.repeat(labels, weights))
    np.testing.assert_allclose(weighted.scale, repeated.scale, rtol=1e-3)
    np.testing.assert_allclose(weighted.bias, repeated.bias, atol=1e-3)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(FITS)))
def test_classes_may_be_permuted_and_rows_shifted(seed, name):
    scores, labels, _ = _miscalibrated(80, 3, temperature=1.5, seed=seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(3)
    shifted = scores + 5 * rng.normal(size=(80, 1))
    expected = FITS[name](scores, labels).log_probs(scores)
    permuted = FITS[name](shifted[:, order], np.argsort(order)[labels]).log_probs(shifted[:, order])
    np.testing.assert_allclose(jnp.exp(permuted), jnp.exp(expected)[:, order], atol=2e-3)
    np.testing.assert_allclose(jnp.exp(expected).sum(axis=1), 1, atol=1e-5)


def test_scores_that_point_away_from_the_labels_do_not_converge_to_a_temperature():
    scores, labels, _ = _miscalibrated(200, 3, temperature=1.0)
    assert not calibrators.fit_temperature(-scores, labels).converged


def test_a_class_without_labels_is_held_by_the_penalty_and_else_driven_to_zero():
    scores, labels, _ = _miscalibrated(300, 3, temperature=1.0)
    present = labels != 2
    scores, labels = scores[present], labels[present]
    free = calibrators.fit_bias_corrected_temperature(scores, labels)
    held = calibrators.fit_bias_corrected_temperature(scores, labels, penalty=0.01)
    assert jnp.exp(free.log_probs(scores))[:, 2].mean() < 1e-4
    assert 1e-3 < jnp.exp(held.log_probs(scores))[:, 2].mean() < 0.2
    assert held.converged


def test_a_score_of_minus_infinity_stays_impossible():
    scores, labels, _ = _miscalibrated(200, 3, temperature=1.0)
    scores[labels == 0, 2] = -np.inf
    fitted = calibrators.fit_bias_corrected_temperature(scores, labels)
    calibrated = fitted.log_probs(scores)
    assert fitted.converged
    np.testing.assert_array_equal(np.isneginf(calibrated), np.isneginf(scores))


def test_a_label_of_probability_zero_is_refused():
    with pytest.raises(ValueError, match="each row's label possible; row 1, label 1"):
        calibrators.fit_temperature(np.array([[0.0, 0.0], [0.0, -np.inf]]), np.array([0, 1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_jit_and_vmap_over_weights_equal_a_loop(name):
    scores, labels, _ = _miscalibrated(100, 3, temperature=2.0)
    weights = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, size=(3, 100)), jnp.float32)
    batched = jax.jit(jax.vmap(lambda w: FITS[name](scores, labels, sample_weights=w)))(weights)
    for row, w in enumerate(weights):
        single = FITS[name](scores, labels, sample_weights=w)
        np.testing.assert_allclose(batched.scale[row], single.scale, rtol=1e-3)
        np.testing.assert_allclose(batched.bias[row], single.bias, atol=1e-3)


@pytest.mark.parametrize("name", ["bias_corrected", "vector"])
def test_no_matrix_product_is_left_to_an_accelerators_low_precision(name):
    scores, labels, _ = _miscalibrated(20, 3, temperature=1.0)
    products, low = products_of_low_precision(lambda s: FITS[name](s, labels).bias, jnp.asarray(scores))
    assert products > 0
    assert low == 0


@pytest.mark.oracle
@pytest.mark.parametrize("name", FITS)
def test_abstention_finds_the_same_calibration(name, x64):
    peer = pytest.importorskip("abstention.calibration")
    scores, labels, _ = _miscalibrated(2000, 5, temperature=2.0)
    log_probs = np.asarray(jax.nn.log_softmax(scores))
    factory = {
        "temperature": lambda: peer.TempScaling(),
        "bias_corrected": lambda: peer.TempScaling(bias_positions="all"),
        "vector": lambda: peer.VectorScaling(),
    }[name]()
    calibrate = factory(np.exp(log_probs), np.eye(5)[labels], posterior_supplied=True)
    expected = calibrate(np.exp(log_probs))
    fitted = FITS[name](log_probs, labels, tolerance=1e-10)
    assert fitted.converged
    assert fitted.nll <= -np.log(expected[np.arange(2000), labels]).mean() + 1e-12
    # abstention's L-BFGS stops at a relative change of 1e-7.
    np.testing.assert_allclose(jnp.exp(fitted.log_probs(log_probs)), expected, atol=1e-3)
