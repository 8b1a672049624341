"""Intervals are compared with ``scipy.stats.bootstrap`` on the very same resamples, and with closed forms."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from zsml_jax import evaluate


def weighted_mean(x, w):
    return (x * w).sum(axis=-1) / w.sum(axis=-1)


@pytest.fixture
def skewed(x64):
    rng = np.random.default_rng(0)
    return rng.exponential(size=40), rng.uniform(0.5, 1.5, size=40)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_interval_equals_scipys_on_the_same_resamples(key, skewed, method):
    x, w = skewed
    resampled = evaluate.bootstrap_distribution(weighted_mean, x, w, key=key, n_resamples=999)
    expected = scipy.stats.bootstrap(
        (x, w),
        lambda x, w, axis: weighted_mean(x, w),
        paired=True,
        n_resamples=0,
        method=method,
        confidence_level=0.9,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=np.asarray(resampled)),
    )
    ours = evaluate.bootstrap_interval(
        weighted_mean, x, w, key=key, n_resamples=999, level=0.9, method=method, batch_size=100
    )
    np.testing.assert_allclose([ours.low, ours.high], expected.confidence_interval, rtol=1e-10)
    np.testing.assert_allclose(ours.standard_error, expected.standard_error, rtol=1e-10)
    np.testing.assert_allclose(ours.estimate, weighted_mean(x, w), rtol=1e-12)


def test_the_resamples_follow_scipys_distribution(key, skewed):
    x, w = skewed
    theirs = scipy.stats.bootstrap(
        (x, w), lambda x, w, axis: weighted_mean(x, w), paired=True, vectorized=True, n_resamples=4000, rng=1
    )
    ours = evaluate.bootstrap_distribution(weighted_mean, x, w, key=key, n_resamples=4000)
    assert scipy.stats.ks_2samp(ours, theirs.bootstrap_distribution).pvalue > 0.01


def test_the_interval_covers_the_truth_as_often_as_its_level_says(key):
    normal_key, boot_key = jax.random.split(key)
    samples = jax.random.normal(normal_key, (300, 60))
    interval = jax.vmap(
        lambda x, k: evaluate.bootstrap_interval(jnp.mean, x, key=k, n_resamples=300, level=0.9, batch_size=300)
    )(samples, jax.random.split(boot_key, 300))
    covered = np.mean((interval.low < 0) & (interval.high > 0))
    # Binomial standard deviation .017; the percentile interval of a mean of 60 is about a point too narrow.
    assert 0.84 < covered < 0.94


def test_pairing_narrows_the_interval_of_a_difference(key):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=500)
    base = np.where(rng.uniform(size=500) < 0.7, labels, 1 - labels)
    better = np.where(rng.uniform(size=500) < 0.2, labels, base)
    paired = evaluate.paired_difference_interval(evaluate.accuracy, (labels, better), (labels, base), key=key)
    change = (better == labels).astype(float) - (base == labels)
    np.testing.assert_allclose(paired.estimate, change.mean(), atol=1e-6)
    np.testing.assert_allclose(paired.standard_error, change.std(ddof=1) / np.sqrt(500), rtol=0.05)
    single = evaluate.bootstrap_interval(evaluate.accuracy, labels, base, key=key)
    assert paired.standard_error < single.standard_error
    assert paired.low > 0


def test_a_statistic_may_have_any_shape_and_need_groups(key):
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(2, size=200), np.repeat([0, 1, 2], [190, 8, 2])
    predictions = np.where(rng.uniform(size=200) < 0.8, labels, 1 - labels)

    def statistic(labels, predictions, groups):
        by_group = evaluate.group_accuracies(labels, predictions, groups, n_groups=3)
        return jnp.stack([evaluate.micro_average(by_group), evaluate.worst_group_accuracy(by_group)])

    interval = evaluate.bootstrap_interval(statistic, labels, predictions, groups, key=key, n_resamples=500)
    assert interval.low.shape == (2,)
    micro = evaluate.bootstrap_interval(evaluate.accuracy, labels, predictions, key=key, n_resamples=500)
    np.testing.assert_allclose([interval.low[0], interval.high[0]], [micro.low, micro.high], atol=1e-6)
    assert np.isfinite(np.asarray(interval)).all()


def test_a_constant_statistic_has_an_interval_of_no_width(key):
    for method in ("percentile", "bca"):
        interval = evaluate.bootstrap_interval(jnp.mean, np.ones(20, np.float32), key=key, method=method)
        np.testing.assert_array_equal(np.asarray(interval), [1, 1, 1, 0])


def test_the_same_key_gives_the_same_interval_at_any_batch_size(key):
    x = np.random.default_rng(0).normal(size=50).astype(np.float32)
    first, second = (
        evaluate.bootstrap_interval(jnp.mean, x, key=key, n_resamples=130, batch_size=size) for size in (1, 64)
    )
    np.testing.assert_allclose(np.asarray(first), np.asarray(second), rtol=1e-6)


def test_a_statistic_that_is_given_again_is_not_compiled_again(key):
    calls = []

    def mean(x):
        calls.append(x.shape)
        return x.mean()

    x = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    for method in ("percentile", "bca"):
        evaluate.bootstrap_interval(mean, x[0], key=key, n_resamples=100, method=method)
    evaluate.paired_difference_interval(mean, [x[0]], [x[1]], key=key, n_resamples=100)
    calls.clear()
    evaluate.bootstrap_interval(mean, x[1], key=jax.random.key(1), n_resamples=100, method="bca")
    evaluate.paired_difference_interval(mean, [x[1]], [x[0]], key=key, n_resamples=100)
    # The estimates of the data themselves, one and two.
    assert len(calls) == 3


def test_the_seed_interval_is_students(x64):
    values = np.random.default_rng(0).normal(0.7, 0.02, size=(5, 3))
    ours = evaluate.seed_interval(values, level=0.9)
    low, high = scipy.stats.t.interval(0.9, df=4, loc=values.mean(0), scale=scipy.stats.sem(values, axis=0))
    np.testing.assert_allclose([ours.low, ours.high], [low, high], rtol=1e-12)


def test_bad_input_is_refused_by_name(key, unchecked_types):
    x = np.ones(10, np.float32)
    with pytest.raises(ValueError, match="data must be arrays that share their first axis"):
        evaluate.bootstrap_interval(weighted_mean, x, x[:5], key=key)
    with pytest.raises(ValueError, match="data must be arrays"):
        evaluate.bootstrap_interval(jnp.mean, x[:1], key=key)
    with pytest.raises(ValueError, match="method must be"):
        evaluate.bootstrap_interval(jnp.mean, x, key=key, method="basic")
    with pytest.raises(ValueError, match="level must lie between 0 and 1, got 95"):
        evaluate.bootstrap_interval(jnp.mean, x, key=key, level=95)
    with pytest.raises(ValueError, match="n_resamples must be >= 2"):
        evaluate.bootstrap_interval(jnp.mean, x, key=key, n_resamples=1)
    with pytest.raises(ValueError, match="statistic must not be NaN, got NaN in 100 of 100 resamples"):
        evaluate.bootstrap_interval(lambda x: jnp.mean(x) * jnp.nan, x, key=key, n_resamples=100)
    with pytest.raises(ValueError, match="at least two seeds"):
        evaluate.seed_interval(x[:1])
    with pytest.raises(ValueError, match="values must be finite"):
        evaluate.seed_interval(x * np.nan)
