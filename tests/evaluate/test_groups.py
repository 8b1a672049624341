"""Expected numbers are worked out by hand, or by scikit-learn group by group."""

import jax
import numpy as np
import pytest
import sklearn.metrics as sk

from zsml_jax import evaluate

#: Waterbirds' training groups, the weights of its adjusted average in WILDS.
WATERBIRDS = np.array([3498, 184, 56, 1057])


@pytest.fixture
def waterbirds_like():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), [100, 90, 30, 20])
    labels = groups // 2
    hit = rng.uniform(size=len(groups)) < np.array([0.95, 0.7, 0.3, 0.9])[groups]
    return labels, np.where(hit, labels, 1 - labels), groups


def test_group_accuracies_agree_with_scikit_learn_on_each_group(waterbirds_like):
    labels, predictions, groups = waterbirds_like
    weights = np.random.default_rng(1).uniform(0.5, 1.5, size=len(labels))
    by_group = evaluate.group_accuracies(labels, predictions, groups, n_groups=4, weights=weights)
    expected = [
        sk.accuracy_score(labels[m], predictions[m], sample_weight=weights[m]) for m in (groups == g for g in range(4))
    ]
    np.testing.assert_allclose(by_group.accuracy, expected, rtol=1e-6)
    assert evaluate.micro_average(by_group) == pytest.approx(
        sk.accuracy_score(labels, predictions, sample_weight=weights)
    )
    assert evaluate.worst_group_accuracy(by_group) == pytest.approx(min(expected))


def test_the_three_averages_differ_as_their_names_say():
    by_group = evaluate.GroupAccuracies(np.array([0.9, 0.6, 0.3, 0.8]), np.array([0.4, 0.4, 0.1, 0.1]))
    assert evaluate.micro_average(by_group) == pytest.approx(0.71)
    assert evaluate.macro_group_average(by_group) == pytest.approx(0.65)
    adjusted = (3498 * 0.9 + 184 * 0.6 + 56 * 0.3 + 1057 * 0.8) / 4795
    assert evaluate.train_weighted_average(by_group, WATERBIRDS) == pytest.approx(adjusted)
    assert evaluate.accuracy_gap(by_group, average="micro") == pytest.approx(0.41)
    assert evaluate.accuracy_gap(by_group, average="macro_group") == pytest.approx(0.35)
    gap = evaluate.accuracy_gap(by_group, average="train_weighted", train_weights=WATERBIRDS)
    assert gap == pytest.approx(adjusted - 0.3)


def test_an_empty_group_is_neither_the_worst_nor_part_of_an_average():
    labels, predictions, groups = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), np.array([0, 0, 2, 2])
    by_group = evaluate.group_accuracies(labels, predictions, groups, n_groups=3)
    np.testing.assert_array_equal(by_group.present, [True, False, True])
    assert evaluate.worst_group_accuracy(by_group) == 0.5
    assert evaluate.macro_group_average(by_group) == 0.75
    assert evaluate.train_weighted_average(by_group, np.array([3, 90, 1])) == pytest.approx((3 * 1 + 0.5) / 4)


def test_group_metrics_map_over_many_predictions(waterbirds_like):
    labels, predictions, groups = waterbirds_like
    stacked = np.stack([predictions, 1 - predictions, labels])
    worst = lambda p: evaluate.worst_group_accuracy(evaluate.group_accuracies(labels, p, groups, n_groups=4))
    np.testing.assert_allclose(jax.jit(jax.vmap(worst))(stacked), [worst(p) for p in stacked])


def test_bad_input_is_refused_by_name(unchecked_types, waterbirds_like):
    labels, predictions, groups = waterbirds_like
    with pytest.raises(ValueError, match="groups must lie between 0 and 2, got 3"):
        evaluate.group_accuracies(labels, predictions, groups, n_groups=3)
    by_group = evaluate.group_accuracies(labels, predictions, groups, n_groups=4)
    with pytest.raises(ValueError, match="average must be"):
        evaluate.accuracy_gap(by_group, average="mean")
    with pytest.raises(ValueError, match="train_weights must be given"):
        evaluate.accuracy_gap(by_group, average="train_weighted")
    with pytest.raises(ValueError, match="train_weights must be given"):
        evaluate.accuracy_gap(by_group, average="micro", train_weights=WATERBIRDS)
    with pytest.raises(ValueError, match=r"train_weights must have shape \(4,\)"):
        evaluate.train_weighted_average(by_group, WATERBIRDS[:3])
    only_first = evaluate.group_accuracies(labels, predictions, np.zeros_like(groups), n_groups=4)
    with pytest.raises(ValueError, match="train_weights must be positive for a group that has examples"):
        evaluate.train_weighted_average(only_first, np.array([0, 1, 1, 1]))
