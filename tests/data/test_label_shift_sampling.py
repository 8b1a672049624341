import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.data import dirichlet_label_distribution, resample

P = np.array([0.5, 0.3, 0.2, 0.0], np.float32)


def draws(concentration, count=20_000):
    keys = jax.random.split(jax.random.key(1), count)
    draw = lambda key: dirichlet_label_distribution(P, concentration=concentration, key=key)
    return np.asarray(jax.jit(jax.vmap(draw))(keys))


@pytest.mark.parametrize("concentration", [0.25, 1.0, 10.0])
def test_mean_and_variance_are_those_of_the_dirichlet_distribution(concentration):
    sample = draws(concentration)
    variance = P * (1 - P) / (concentration * len(P) + 1)
    assert np.abs(sample.mean(0) - P).max() < 5 * np.sqrt(variance.max() / len(sample))
    assert np.abs(sample.var(0) - variance).max() < 0.05 * variance.max()
    assert np.allclose(sample.sum(1), 1, atol=1e-5) and (sample[:, 3] == 0).all()


def test_the_marginals_are_beta_distributions():
    from scipy.stats import beta, kstest

    alpha = 0.5 * 4 * P.astype(np.float64)
    sample = draws(0.5, 4000)
    for k in range(3):
        assert kstest(sample[:, k], beta(alpha[k], alpha.sum() - alpha[k]).cdf).pvalue > 1e-3


def test_a_tiny_concentration_gives_a_distribution_and_no_nan():
    sample = draws(1e-4, 200)
    assert np.isfinite(sample).all() and np.allclose(sample.sum(1), 1, atol=1e-5)
    assert (sample.max(1) > 0.99).mean() > 0.95


def test_the_concentration_may_be_traced_and_vmapped(key):
    at = jax.vmap(lambda a: dirichlet_label_distribution(P, concentration=a, key=key))(jnp.array([0.5, 2.0]))
    assert np.allclose(at[1], dirichlet_label_distribution(P, concentration=2.0, key=key), atol=1e-6)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan"), float("inf")])
def test_a_concentration_that_is_not_positive_is_refused(key, concentration):
    with pytest.raises(ValueError, match="concentration must be positive and finite"):
        dirichlet_label_distribution(P, concentration=concentration, key=key)


@pytest.mark.parametrize("p", [[0.5, 0.6], [1.5, -0.5], [0.5, float("nan")], [1.0], [[0.5, 0.5]]])
def test_what_is_no_distribution_is_refused(unchecked_types, key, p):
    with pytest.raises(ValueError, match="label_distribution must"):
        dirichlet_label_distribution(np.array(p, np.float32), concentration=1.0, key=key)
    with pytest.raises(ValueError, match="label_distribution must"):
        resample(np.array([0, 1]), np.array(p, np.float32), key=key)


def test_a_resample_meets_the_distribution_at_the_largest_size_without_repeats(key):
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    chosen = resample(labels, np.array([0.25, 0.25, 0.5]), key=key)
    assert len(set(chosen.tolist())) == len(chosen) == 400
    assert np.bincount(labels[chosen]).tolist() == [100, 100, 200]


def test_the_labels_own_distribution_keeps_every_example(key):
    for counts in ([3, 7, 11], [1, 1, 1], [333, 333, 1]):
        labels = np.repeat(np.arange(3), counts)
        chosen = resample(labels, np.array(counts, np.float32) / sum(counts), key=key)
        assert sorted(chosen.tolist()) == list(range(len(labels)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6), st.data())
def test_counts_are_within_one_of_the_shares_and_no_larger_size_is_feasible(counts, drawn):
    weights = drawn.draw(st.lists(st.floats(0.01, 1.0), min_size=len(counts), max_size=len(counts)))
    nu = np.array(weights) / sum(weights)
    labels = np.repeat(np.arange(len(counts)), counts)
    size = int(np.floor(np.min(np.array(counts) / nu) * (1 + 1e-6)))
    if size == 0:
        with pytest.raises(ValueError, match="leaves no example"):
            resample(labels, nu, key=jax.random.key(0))
        return
    chosen = resample(labels, nu, key=jax.random.key(0))
    found = np.bincount(labels[chosen], minlength=len(counts))
    assert len(set(chosen.tolist())) == len(chosen) == size
    assert (np.abs(found - len(chosen) * nu) < 1 + 1e-4).all()
    assert ((size + 1) * nu > np.array(counts) * (1 - 1e-5)).any()


def test_every_example_of_a_class_is_as_likely_and_the_order_is_random():
    labels = np.repeat([0, 1], [10, 40])
    nu = np.array([0.5, 0.5])
    samples = [resample(labels, nu, key=jax.random.key(seed)) for seed in range(300)]
    often = np.bincount(np.concatenate(samples), minlength=50)
    assert (often[:10] == 300).all() and abs(often[10:] / 300 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 300)
    assert abs(np.mean([labels[s[0]] for s in samples]) - 0.5) < 5 * 0.5 / np.sqrt(300)
    assert np.array_equal(samples[7], resample(labels, nu, key=jax.random.key(7)))


def test_a_class_that_has_no_example_is_named(key):
    with pytest.raises(ValueError, match=r"gives classes \[1\] a share"):
        resample(np.array([0, 2, 2]), np.array([0.5, 0.1, 0.4]), key=key)
    assert len(resample(np.array([0, 2, 2]), np.array([0.5, 0.0, 0.5]), key=key)) == 2


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], []])
def test_labels_outside_of_the_classes_are_refused(key, labels):
    with pytest.raises(ValueError, match=r"labels must be class indices in 0\.\.2"):
        resample(np.array(labels, int), np.array([0.5, 0.3, 0.2]), key=key)
