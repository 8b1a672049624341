"""Facts of the papers' theorems, and accuracies in closed form by the normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from zsml_jax import evaluate
from zsml_jax.zeroshot import roboshot, synthetic
from zsml_jax.zeroshot.head import ClassHead


def by_group(problem, **insights):
    head = ClassHead(problem.class_vectors, jnp.float32(1.0), jnp.zeros(2))
    head = roboshot.edit_head(head, **insights) if insights else head
    return evaluate.group_accuracies(problem.labels, head.predict(problem.x), problem.groups, n_groups=4)


def test_zero_shot_tosses_a_coin_in_the_groups_against_the_spurious_sign(key):
    problem = synthetic.roboshot_gaussians(key)
    accuracy = by_group(problem).accuracy
    # The margin of the aligned groups is 2, of noise .5 in two coordinates.
    np.testing.assert_allclose(accuracy[jnp.array([0, 3])], norm.cdf(2 / (0.5 * np.sqrt(2))), atol=0.005)
    np.testing.assert_allclose(accuracy[jnp.array([1, 2])], 0.5, atol=0.03)


def test_the_edit_raises_the_worst_group_to_that_of_the_core_concept_alone(key):
    problem = synthetic.roboshot_gaussians(key, insight_noise=0.0)
    edited = by_group(problem, harmful=problem.harmful, helpful=problem.helpful)
    np.testing.assert_allclose(edited.accuracy, norm.cdf(1 / 0.5), atol=0.01)
    noisy = synthetic.roboshot_gaussians(key)
    worst = evaluate.worst_group_accuracy
    assert worst(by_group(noisy, harmful=noisy.harmful, helpful=noisy.helpful)) > worst(by_group(noisy)) + 0.3


def test_the_harmful_coefficient_shrinks_within_the_bound_of_theorem_4_1(key):
    """With k concepts, insight coefficient g and noise s, |E A_s| <= |(k-1) a s^2/g^2| + |sum_t a_s s^2/g^2|."""
    k, noise = 6, 0.1

    def coefficient(key):
        problem = synthetic.roboshot_gaussians(key, n_per_group=1, n_benign=k - 2, insight_noise=noise)
        clean = jnp.zeros(k).at[1].set(1.0)
        return roboshot.edit_embeddings(clean, harmful=problem.harmful, renormalize=False)[1]

    after = jax.vmap(coefficient)(jax.random.split(key, 500))
    bound = 2 * (k - 1) * noise**2
    assert 0 < after.mean() <= bound
    # To leading order the removed coefficient of one insight leaves the share of its noise.
    np.testing.assert_allclose(after.mean(), (k - 1) * noise**2 / (1 + (k - 1) * noise**2), rtol=0.1)


def test_the_helpful_coefficient_grows_as_theorem_4_2_says(key):
    k, noise = 6, 0.1

    def coefficient(key):
        problem = synthetic.roboshot_gaussians(key, n_per_group=1, n_benign=k - 2, insight_noise=noise)
        clean = jnp.zeros(k).at[0].set(1.0)
        return roboshot.edit_embeddings(clean, helpful=problem.helpful, renormalize=False)[0]

    after = jax.vmap(coefficient)(jax.random.split(key, 500))
    assert after.mean() >= 1 + 1 / (1 + (k - 1) * noise**2) - 0.01
    assert after.max() <= 2 + 1e-5


def test_group_means_and_noise_are_as_asked(key):
    problem = synthetic.roboshot_gaussians(key, core=2.0, spurious=3.0, benign=0.5, n_benign=2)
    x = np.asarray(problem.x).reshape(4, 2500, 4)
    expected = [[-2, -3, 0.5, 0.5], [-2, 3, 0.5, 0.5], [2, -3, 0.5, 0.5], [2, 3, 0.5, 0.5]]
    np.testing.assert_allclose(x.mean(axis=1), expected, atol=0.05)
    np.testing.assert_allclose(x.std(axis=1), np.tile([0.5, 0.5, 0.01, 0.01], (4, 1)), rtol=0.06)


@pytest.mark.parametrize(
    ("rate", "naive", "bayes"), [(0.9, 0.9286, 0.9286), (0.7, 0.8256, 0.8615), (0.15, 0.5363, 0.9089)]
)
def test_source_and_bayes_accuracy_are_those_of_the_normal_distribution(key, rate, naive, bayes):
    problem = synthetic.label_shift_gaussians(key, n=100_000, target_positive_rate=rate)

    def exact(positive):
        cut = -0.5 * np.log(positive / (1 - positive))
        return rate * norm.sf(cut - 1) + (1 - rate) * norm.cdf(cut + 1)

    for log_probs, positive, table in ((problem.source_log_probs, 0.9, naive), (problem.target_log_probs, rate, bayes)):
        measured = evaluate.accuracy(problem.labels, log_probs.argmax(axis=1))
        np.testing.assert_allclose(measured, exact(positive), atol=0.005)
        np.testing.assert_allclose(exact(positive), table, atol=0.006)


def test_the_posteriors_differ_by_the_ratio_of_the_priors(key):
    problem = synthetic.label_shift_gaussians(key, n=100, target_positive_rate=0.3, source_positive_rate=0.8)
    shifted = jax.nn.log_softmax(problem.source_log_probs + jnp.log(jnp.array([0.7 / 0.2, 0.3 / 0.8])))
    np.testing.assert_allclose(shifted, problem.target_log_probs, atol=1e-5)
    np.testing.assert_allclose(problem.target_prior, [0.7, 0.3], rtol=1e-6)


def test_problems_map_over_keys_and_rates(key):
    rates = jnp.array([0.2, 0.5, 0.8])
    draw = lambda rate: synthetic.label_shift_gaussians(key, n=50, target_positive_rate=rate)
    mapped = jax.vmap(draw)(rates)
    np.testing.assert_allclose(mapped.target_log_probs, [draw(r).target_log_probs for r in rates], atol=1e-5)


def test_bad_input_is_refused_by_name(key):
    with pytest.raises(ValueError, match="target_positive_rate must lie between 0 and 1, got 1"):
        synthetic.label_shift_gaussians(key, target_positive_rate=1.0)
    with pytest.raises(ValueError, match="scale must lie between 0 and inf"):
        synthetic.label_shift_gaussians(key, target_positive_rate=0.5, scale=0.0)
    with pytest.raises(ValueError, match="n_per_group must be at least 1, got 0"):
        synthetic.roboshot_gaussians(key, n_per_group=0)
