import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.evaluate import score_checks

BAD_LOG_PROBS = {
    "shape": (np.zeros(3, np.float32), r"shape \(n, k\).*got shape \(3,\)"),
    "empty": (np.zeros((0, 2), np.float32), r"n >= 1 and k >= 1, got shape \(0, 2\)"),
    "integers": (np.zeros((2, 2), np.int32), "must hold floats, got dtype int32"),
    "nan": (np.array([[0.0, 0.0], [0.0, np.nan]]), "neither NaN nor .inf; row 1"),
    "nan beside -inf": (np.array([[-np.inf, np.nan]]), "neither NaN nor .inf; row 0"),
    "infinity": (np.array([[np.inf, 0.0]]), "neither NaN nor .inf; row 0"),
    "impossible row": (np.array([[0.0, 0.0], [-np.inf, -np.inf]]), "all entries of row 1 are -inf"),
}


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("case", BAD_LOG_PROBS)
def test_unsound_log_probs_are_refused_by_name(case, convert, unchecked_types):
    log_probs, message = BAD_LOG_PROBS[case]
    with pytest.raises(ValueError, match=f"scores .*{message}"):
        score_checks.check_log_probs(convert(log_probs), "scores")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_minus_infinity_is_a_probability_of_zero(dtype):
    score_checks.check_log_probs(jnp.array([[0.0, -jnp.inf], [-jnp.inf, -3.0]], dtype))


def test_half_precision_scores_are_widened_and_not_otherwise_changed():
    scores = jnp.array([[0.5, -2.0]], jnp.bfloat16)
    widened = score_checks.checked_log_probs(scores)
    assert widened.dtype == jnp.float32
    np.testing.assert_array_equal(widened, [[0.5, -2.0]])


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ([0.5, 0.6], "sum to 1 within 0.0001, got a sum of 1.1"),
        ([1.5, -0.5], "not be negative, got -0.5 at index 1"),
        ([np.nan, 1.0], "finite, got nan at index 0"),
        ([0.5, 0.25, 0.25], r"shape \(2,\).*got shape \(3,\)"),
    ],
)
def test_what_is_no_distribution_is_refused_by_name(distribution, message, unchecked_types):
    with pytest.raises(ValueError, match=f"prior must .*{message}"):
        score_checks.check_label_distribution(np.array(distribution), 2, "prior")


def test_float32_frequencies_of_ten_thousand_classes_pass():
    counts = np.random.default_rng(0).integers(1, 1000, 10_000)
    score_checks.check_label_distribution((counts / counts.sum()).astype(np.float32), 10_000)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0, 2]), "between 0 and 1, got 2 at index 1"),
        (np.array([-1, 0]), "between 0 and 1, got -1 at index 0"),
        (np.array([0.0, 1.0]), "integers, got dtype float"),
        (np.array([0]), r"shape \(2,\).*got shape \(1,\)"),
    ],
)
def test_unsound_labels_are_refused_by_name(labels, message, unchecked_types):
    with pytest.raises(ValueError, match=f"classes must .*{message}"):
        score_checks.check_labels(labels, 2, 2, "classes")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.0, 0.0], "a positive weight, got 2 zeros"),
        ([-1.0, 2.0], "not be negative, got -1 at index 0"),
        ([1.0, np.inf], "finite, got inf at index 1"),
        ([1.0], r"shape \(2,\).*got shape \(1,\)"),
    ],
)
def test_unsound_weights_are_refused_by_name(weights, message, unchecked_types):
    with pytest.raises(ValueError, match=f"sample_weights must .*{message}"):
        score_checks.check_sample_weights(np.array(weights), 2)


def test_weights_are_scaled_to_sum_to_one_and_equal_when_not_given():
    np.testing.assert_allclose(score_checks.checked_sample_weights(np.array([1.0, 3.0]), 2, jnp.float32), [0.25, 0.75])
    np.testing.assert_allclose(score_checks.checked_sample_weights(None, 4, jnp.float32), [0.25] * 4)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_an_unsound_hyperparameter_is_refused_by_name(value):
    with pytest.raises(ValueError, match="ridge must be non-negative and finite"):
        score_checks.checked_scalar(value, "ridge", jnp.float32)


def test_zero_is_refused_where_a_hyperparameter_must_be_positive():
    assert score_checks.checked_scalar(0.0, "ridge", jnp.float32) == 0
    with pytest.raises(ValueError, match="ridge must be positive and finite, got 0"):
        score_checks.checked_scalar(0.0, "ridge", jnp.float32, positive=True)


def test_inside_jit_shapes_are_checked_and_values_are_not():
    def checked(log_probs):
        score_checks.check_log_probs(log_probs)
        score_checks.check_label_distribution(log_probs[0], 2)
        score_checks.check_sample_weights(log_probs[0], 2)
        return log_probs

    assert jnp.isnan(jax.jit(checked)(jnp.full((3, 2), jnp.nan))).all()
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        jax.jit(checked)(jnp.zeros((2, 3)))


def test_a_known_array_is_checked_while_something_else_is_traced():
    unsound, known = jnp.asarray(BAD_LOG_PROBS["nan"][0]), jnp.zeros((2, 2))
    with pytest.raises(ValueError, match="neither NaN nor .inf; row 1"):
        jax.jit(lambda x: score_checks.checked_log_probs(unsound) + x)(1.0)
    np.testing.assert_array_equal(jax.jit(lambda x: score_checks.checked_log_probs(known) + x)(1.0), np.ones((2, 2)))
