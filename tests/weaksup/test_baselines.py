"""Softmax regression, label propagation and end models beside scikit-learn and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelPropagation

from tests.weaksup.partly import KEY, blobs
from zsml_jax.weaksup import end_model, foundation_votes, label_propagation, softmax_regression
from zsml_jax.weaksup.partly_labelled import hidden_folds


@pytest.mark.parametrize("k", [2, 3])
def test_few_shot_regression_is_scikit_learns(k):
    x, truth, labels = blobs(k=k)
    fitted = softmax_regression.fit_labelled(x, labels, inverse_penalty=0.8)
    peer = LogisticRegression(C=0.8, tol=1e-8, max_iter=2000).fit(np.asarray(x)[:60], truth[:60])
    assert fitted.converged
    np.testing.assert_allclose(fitted.posterior(x), peer.predict_proba(np.asarray(x)), atol=2e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_few_shot_regression_of_features_far_from_zero_converges_to_scikit_learns_about_their_mean(k):
    x, truth, labels = blobs(k=k)
    x = np.asarray(x)
    fitted = softmax_regression.fit_labelled(x + 1000, labels)
    peer = LogisticRegression(tol=1e-8, max_iter=2000).fit(x[:60], truth[:60])
    assert fitted.converged and fitted.iterations < 100
    np.testing.assert_allclose(fitted.posterior(x + 1000), peer.predict_proba(x), atol=5e-3)


def test_more_columns_than_labels_are_no_obstacle():
    x, truth, labels = blobs(n=60, d=200, labelled=20)
    fitted = softmax_regression.fit_labelled(x, labels)
    peer = LogisticRegression(tol=1e-8, max_iter=5000).fit(np.asarray(x)[:20], truth[:20])
    np.testing.assert_allclose(fitted.posterior(x), peer.predict_proba(np.asarray(x)), atol=5e-3)


def test_soft_labels_weigh_an_example_once_for_each_class():
    x, _, _ = blobs(n=80, k=2)
    q = np.random.default_rng(0).dirichlet(np.ones(2), 80).astype(np.float32)
    soft = softmax_regression.fit_soft(x, q, tolerance=1e-4)
    peer = LogisticRegression(tol=1e-8, max_iter=2000)
    doubled = np.concatenate([np.asarray(x)] * 2)
    peer.fit(doubled, np.repeat([0, 1], 80), sample_weight=np.concatenate([q[:, 0], q[:, 1]]))
    np.testing.assert_allclose(soft.posterior(x), peer.predict_proba(np.asarray(x)), atol=2e-3)


@pytest.mark.parametrize("k", [2, 3])
def test_the_penalty_is_the_best_of_scikit_learns_over_the_same_folds(k):
    x, truth, labels = blobs(n=80, k=k, d=20, labelled=40)
    penalties = (1e-4, 0.05, 100.0)
    chosen = softmax_regression.tune(x, labels, key=KEY, inverse_penalties=penalties, folds=4)
    rows = np.flatnonzero(labels != -1)
    a, y = np.asarray(x)[rows], truth[rows]
    right = [
        sum(
            (LogisticRegression(C=c, tol=1e-6, max_iter=5000).fit(a[~out], y[~out]).predict(a[out]) == y[out]).sum()
            for out in hidden_folds(len(rows), 4, key=KEY)
        )
        for c in penalties
    ]
    assert chosen == penalties[int(np.argmax(right))]
    assert len(set(right)) > 1
    with pytest.raises(ValueError, match="folds must lie between 2 and the 40 labels, got 1"):
        softmax_regression.tune(x, labels, key=KEY, folds=1)


def test_every_label_is_hidden_in_one_fold():
    hidden = hidden_folds(11, 3, key=KEY)
    np.testing.assert_array_equal(hidden.sum(axis=0), np.ones(11))
    assert sorted(hidden.sum(axis=1)) == [3, 4, 4]


def test_propagation_is_scikit_learns():
    x, _, labels = blobs(n=80, k=3, labelled=20)
    ours = label_propagation.propagate(x, labels, gamma=0.3, tolerance=1e-6)
    peer = LabelPropagation(kernel="rbf", gamma=0.3, max_iter=1000, tol=1e-6).fit(np.asarray(x), labels)
    assert ours.converged
    np.testing.assert_allclose(ours.posterior, peer.label_distributions_, atol=1e-3)


def test_propagation_is_scikit_learns_far_from_zero():
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.arange(100) % 2)
    year, hectopascals = 2010 + 8 * rng.random(100), 1000 + rng.normal(size=100) + 1.5 * (2 * truth - 1)
    x = np.stack([year, hectopascals], axis=1).astype(np.float32)
    labels = np.where(np.arange(100) < 30, truth, -1)
    ours = label_propagation.propagate(x, labels, gamma=5.0)
    peer = LabelPropagation(kernel="rbf", gamma=5.0, max_iter=1000).fit(x.astype(np.float64), labels)
    assert ours.converged
    np.testing.assert_allclose(ours.posterior, peer.label_distributions_, atol=1e-3)


def test_the_width_is_tuned_on_hidden_labels_and_the_others_cannot_change_it():
    x, _, labels = blobs(n=80, k=2, labelled=30)
    chosen = label_propagation.tune(x, labels, key=KEY, gammas=(1e-6, 0.3, 50.0), folds=3)
    assert chosen in (0.3, 50.0)
    assert label_propagation.tune(x[:30], labels[:30], key=KEY, gammas=(1e-6, 0.3), folds=3) == 0.3
    with pytest.raises(ValueError, match="folds must lie between 2 and the 30 labels, got 31"):
        label_propagation.tune(x, labels, key=KEY, folds=31)


def test_what_no_label_reaches_has_equal_shares():
    x = jnp.array([[0.0], [0.1], [1000.0]])
    output = label_propagation.propagate(x, np.array([0, 1, -1]), gamma=1.0)
    np.testing.assert_allclose(output.posterior[2], [0.5, 0.5])


@pytest.mark.slow
def test_a_network_learns_from_posteriors_what_a_line_cannot_part():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    truth = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)
    posterior = np.where(np.eye(2)[truth] == 1, 0.9, 0.1).astype(np.float32)
    config = end_model.Config(hidden=(16,), steps=400, batch_size=64)
    network = end_model.fit(x, posterior, config, key=KEY, learning_rate=1e-2)
    predicted = network.posterior(x)
    assert (predicted.argmax(axis=1) == truth).mean() > 0.95
    assert float(network.losses[-50:].mean()) == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.1), abs=0.12)
    linear = softmax_regression.fit_soft(x, posterior)
    assert (linear.posterior(x).argmax(axis=1) == truth).mean() < 0.7


def test_an_example_of_weight_zero_is_never_seen():
    x, truth, _ = blobs(n=60)
    posterior = np.eye(2, dtype=np.float32)[truth]
    weights = (np.arange(60) < 40).astype(np.float32)
    broken = np.where(weights[:, None] > 0, posterior, posterior[:, ::-1])
    config = end_model.Config(hidden=(4,), steps=20, batch_size=16)
    first, second = (end_model.fit(x, q, config, key=KEY, weights=weights) for q in (posterior, broken))
    np.testing.assert_array_equal(first.posterior(x), second.posterior(x))
    regressions = [softmax_regression.fit_soft(x, q, weights).posterior(x) for q in (posterior, broken)]
    np.testing.assert_allclose(*regressions, atol=1e-6)


@pytest.mark.slow
def test_fits_run_under_jit_and_vmap():
    x, _, labels = blobs(n=50)
    xs = jnp.stack([x, 0.5 * x])
    for run in (
        lambda x: softmax_regression.fit_labelled(x, labels).posterior(x),
        lambda x: label_propagation.propagate(x, labels, gamma=0.3).posterior,
    ):
        looped = jnp.stack([run(each) for each in xs])
        np.testing.assert_allclose(jax.jit(jax.vmap(run))(xs), looped, atol=2e-3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(40), "weights must be .* of a positive, finite sum, got values from 0 to 0"),
        (np.full(40, np.nan), "weights must be finite, .* got values from nan to nan"),
        (np.arange(40) - 1.0, "weights must be .* not negative .* got values from -1 to 38"),
        (np.full(40, 1e39), "weights must be finite, .* got values from inf to inf"),
        (np.full(40, 3e38), r"weights must be .* finite sum, got values from 3e\+38 to 3e\+38"),
        (np.ones(39), r"weights must have shape \(40,\), got shape \(39,\)"),
        (np.ones((40, 1)), r"weights must have shape \(40,\), got shape \(40, 1\)"),
    ],
)
def test_unsound_weights_are_refused_by_end_models(weights, message, unchecked_types):
    x, truth, _ = blobs(n=40)
    posterior = np.eye(2, dtype=np.float32)[truth]
    with pytest.raises(ValueError, match=message):
        end_model.fit(x, posterior, key=KEY, weights=weights)
    with pytest.raises(ValueError, match=message):
        softmax_regression.fit_soft(x, posterior, weights)


def test_traced_weights_pass_and_equal_ones_are_none_at_all():
    x, truth, _ = blobs(n=40)
    posterior = np.eye(2, dtype=np.float32)[truth]
    fit = lambda weights: softmax_regression.fit_soft(x, posterior, weights).posterior(x)
    np.testing.assert_allclose(jax.jit(fit)(jnp.ones(40)), fit(None), atol=1e-5)


def test_foundation_models_vote_where_they_are_sure():
    first, second = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([[0.2, 0.8], [0.5, 0.5]])
    assert foundation_votes.votes([first, second], least=0.7).tolist() == [[0, 1], [-1, -1]]
    np.testing.assert_allclose(foundation_votes.features([first, second])[0], [0.9, 0.1, 0.2, 0.8])
    with pytest.raises(ValueError, match="posteriors must hold matrices"):
        foundation_votes.votes([])


def test_bad_input_is_refused(unchecked_types):
    x, _, labels = blobs(n=40)
    with pytest.raises(ValueError, match="posteriors must have shape"):
        softmax_regression.fit_soft(x, np.ones((3, 2)))
    with pytest.raises(ValueError, match="posteriors must hold distributions; row 0"):
        end_model.fit(x, np.ones((40, 2)), key=KEY)
    with pytest.raises(ValueError, match="hidden, steps and batch_size"):
        end_model.Config(hidden=(0,))
    with pytest.raises(ValueError, match="features must have 4 columns"):
        softmax_regression.fit_labelled(x, labels).posterior(x[:, :2])
