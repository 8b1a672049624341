"""Correlations against scikit-learn and numpy."""

import numpy as np
import pytest
import sklearn.metrics

from zsml_jax.evaluate.correlations import matthews_correlation, pearson_correlation


@pytest.mark.parametrize("seed", range(3))
def test_matthews_correlation_is_scikit_learn_s(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 200)
    predictions = np.where(rng.random(200) < 0.3, 1 - labels, labels)
    found = matthews_correlation(labels, predictions)
    np.testing.assert_allclose(found, sklearn.metrics.matthews_corrcoef(labels, predictions), atol=1e-6)


def test_one_class_only_correlates_with_nothing():
    assert matthews_correlation(np.array([0, 1, 1]), np.array([1, 1, 1])) == 0


def test_pearson_correlation_is_numpy_s():
    x, y = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32) + 5
    np.testing.assert_allclose(pearson_correlation(x, x + y), np.corrcoef(x, x + y)[0, 1], rtol=1e-5)
    assert np.isnan(pearson_correlation(x, np.ones(50, np.float32)))


def test_lengths_that_differ_are_refused(unchecked_types):
    with pytest.raises(ValueError, match="one length, at least 2, got 3 and 2"):
        pearson_correlation(np.ones(3, np.float32), np.ones(2, np.float32))
    with pytest.raises(ValueError, match="predictions"):
        matthews_correlation(np.array([0, 1]), np.array([0, 2]))
