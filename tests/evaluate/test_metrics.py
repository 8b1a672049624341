"""Expected numbers come from scikit-learn."""

import jax
import numpy as np
import pytest
import sklearn.metrics as sk

from zsml_jax import evaluate

N, K = 300, 5


@pytest.fixture
def problem(rng):
    labels = rng.choice(K, size=N, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    predictions = np.where(rng.uniform(size=N) < 0.6, labels, rng.integers(K, size=N))
    return labels, predictions, rng.uniform(0.1, 2.0, size=N).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("weighted", [False, True])
def test_accuracy_recall_and_confusion_agree_with_scikit_learn(problem, weighted):
    labels, predictions, weights = problem
    ours, theirs = ({"weights": weights}, {"sample_weight": weights}) if weighted else ({}, {})
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6)
    close(evaluate.accuracy(labels, predictions, **ours), sk.accuracy_score(labels, predictions, **theirs))
    close(
        evaluate.confusion_matrix(labels, predictions, n_classes=K, **ours),
        sk.confusion_matrix(labels, predictions, **theirs),
    )
    recall = sk.recall_score(labels, predictions, average=None, **theirs)
    close(evaluate.per_class_recall(labels, predictions, n_classes=K, **ours), recall)
    close(evaluate.recall_std(labels, predictions, n_classes=K, **ours), recall.std())
    close(
        evaluate.balanced_accuracy(labels, predictions, n_classes=K, **ours),
        sk.balanced_accuracy_score(labels, predictions, **theirs),
    )


@pytest.mark.parametrize("top", [1, 2, 4])
def test_top_k_accuracy_agrees_with_scikit_learn(problem, rng, top):
    labels, _, weights = problem
    scores = rng.normal(size=(N, K)).astype(np.float32)
    expected = sk.top_k_accuracy_score(labels, scores, k=top, sample_weight=weights)
    np.testing.assert_allclose(evaluate.top_k_accuracy(labels, scores, top=top, weights=weights), expected, rtol=1e-6)


def test_top_1_accuracy_breaks_ties_as_argmax_does():
    scores = np.zeros((3, 3), np.float32)
    assert evaluate.top_k_accuracy(np.array([0, 1, 2]), scores, top=1) == pytest.approx(1 / 3)
    assert evaluate.top_k_accuracy(np.array([1, 1, 1]), scores, top=1) == 0


def test_an_absent_class_has_zero_recall_and_stays_out_of_the_means():
    labels, predictions = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    np.testing.assert_allclose(evaluate.per_class_recall(labels, predictions, n_classes=3), [1, 0.5, 0])
    assert evaluate.balanced_accuracy(labels, predictions, n_classes=3) == pytest.approx(0.75)
    assert evaluate.recall_std(labels, predictions, n_classes=3) == pytest.approx(0.25)


def test_total_variation_of_histograms_is_half_their_l1_distance():
    p = evaluate.label_histogram(np.array([0, 0, 1, 2]), n_classes=3)
    np.testing.assert_allclose(p, [0.5, 0.25, 0.25])
    assert evaluate.total_variation(p, np.array([0.25, 0.25, 0.5], np.float32)) == pytest.approx(0.25)


def test_metrics_run_under_jit_and_vmap_with_the_eager_result(problem):
    labels, predictions, _ = problem
    stacked = np.stack([predictions, labels, np.zeros_like(labels)])
    for metric in (evaluate.balanced_accuracy, evaluate.recall_std, evaluate.per_class_recall):
        mapped = jax.jit(jax.vmap(lambda p, f=metric: f(labels, p, n_classes=K)))(stacked)
        np.testing.assert_allclose(mapped, [metric(labels, p, n_classes=K) for p in stacked], rtol=1e-6)


def test_bad_input_is_refused_by_name(unchecked_types):
    labels = np.array([0, 1, 2])
    with pytest.raises(ValueError, match=r"predictions must have shape \(3,\)"):
        evaluate.accuracy(labels, labels[:2])
    with pytest.raises(ValueError, match="labels must have shape"):
        evaluate.accuracy(labels[:0], labels[:0])
    with pytest.raises(ValueError, match="labels must lie between 0 and 1, got 2"):
        evaluate.confusion_matrix(labels, labels, n_classes=2)
    with pytest.raises(ValueError, match="labels must not be negative, got -1"):
        evaluate.label_histogram(labels - 1, n_classes=3)
    with pytest.raises(ValueError, match="predictions must hold integers"):
        evaluate.accuracy(labels, labels.astype(float))
    with pytest.raises(ValueError, match="weights must be finite, non-negative"):
        evaluate.accuracy(labels, labels, weights=np.array([1.0, np.nan, 1.0]))
    with pytest.raises(ValueError, match="weights must have shape"):
        evaluate.accuracy(labels, labels, weights=np.ones(2))
    with pytest.raises(ValueError, match="top must lie between 1 and the number of classes 3, got 4"):
        evaluate.top_k_accuracy(labels, np.eye(3), top=4)
    with pytest.raises(ValueError, match="scores must not hold NaN; row 1"):
        evaluate.top_k_accuracy(labels, np.diag([1.0, np.nan, 1.0]), top=1)
    with pytest.raises(ValueError, match="q must hold non-negative rows that sum to 1"):
        evaluate.total_variation(np.array([0.5, 0.5]), np.array([0.5, 0.6]))
