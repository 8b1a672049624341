import numpy as np
import pytest
from sklearn import metrics

from zsml_jax.evaluate import ranking


@pytest.mark.parametrize("digits", [8, 1])
def test_areas_precision_and_curves_are_those_of_scikit_learn_also_with_ties(digits):
    rng = np.random.default_rng(0)
    positives, negatives = (rng.normal(loc, size=60).round(digits) for loc in (0.5, 0.0))
    labels, scores = np.repeat([1, 0], 60), np.concatenate([positives, negatives])
    np.testing.assert_allclose(ranking.roc_auc(positives, negatives), metrics.roc_auc_score(labels, scores))
    np.testing.assert_allclose(
        ranking.average_precision(positives, negatives), metrics.average_precision_score(labels, scores)
    )
    curve = ranking.roc_curve(positives, negatives)
    false, true, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, false)
    np.testing.assert_allclose(curve.true_positive_rate, true)


def test_empty_sides_and_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="negatives must not be empty"):
        ranking.roc_auc(np.ones(1), np.ones(0))
    with pytest.raises(ValueError, match="positives must be finite scores, got nan"):
        ranking.average_precision(np.array([np.nan]), np.ones(1))
