"""Stumps, logistic regressions and neighbours are those of scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from tests.weaksup.partly import blobs
from zsml_jax.weaksup.heuristics import bands, candidates, logistic, neighbours, stumps


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("grid", [False, True])
def test_stumps_are_scikit_learns_trees_of_depth_one(k, grid):
    x, y, _ = blobs(60, k, 5)
    x = np.round(np.asarray(x)) if grid else np.asarray(x)  # a grid has equal values, which no threshold parts
    fitted = stumps.fit(jnp.asarray(x), jnp.asarray(y), jnp.ones(60), k)
    probs = fitted.probs(x)
    for j in range(5):
        tree = DecisionTreeClassifier(max_depth=1).fit(x[:, [j]], y)
        impurity = lambda p: (1 - (p**2).sum(axis=1)).mean()
        expected = tree.predict_proba(x[:, [j]])
        np.testing.assert_allclose(impurity(np.asarray(probs[:, j])), impurity(expected), atol=1e-5)
        if not grid:
            np.testing.assert_allclose(probs[:, j], expected, atol=1e-5)


@pytest.mark.slow
def test_a_weight_of_zero_leaves_an_example_out_of_a_stump():
    x, y, _ = blobs(60, 3, 4)
    weights = jnp.asarray(np.random.default_rng(0).integers(0, 2, 60), jnp.float32)
    some = np.flatnonzero(weights)
    fitted = stumps.fit(x, jnp.asarray(y), weights, 3)
    expected = stumps.fit(x[some], jnp.asarray(y[some]), jnp.ones(len(some)), 3)
    np.testing.assert_allclose(fitted.threshold, expected.threshold, atol=1e-6)
    np.testing.assert_allclose(fitted.left, expected.left, atol=1e-6)


def test_a_feature_with_one_value_gives_both_sides_the_same_frequencies():
    fitted = stumps.fit(jnp.ones((4, 1)), jnp.array([0, 1, 1, 1]), jnp.ones(4), 2)
    np.testing.assert_allclose(fitted.left, fitted.right)
    np.testing.assert_allclose(fitted.left[0], [0.25, 0.75])


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("c", [1, 2])
def test_regressions_are_scikit_learns(k, c):
    x, y, _ = blobs(60, k, 4)
    columns = candidates.combinations(4, 2)[c - 1]
    fitted = logistic.fit(x, jnp.asarray(y), jnp.ones(60), k, columns, inverse_penalty=0.7)
    probs = fitted.probs(x)
    for j, chosen in enumerate(columns):
        peer = LogisticRegression(C=0.7, tol=1e-8, max_iter=1000).fit(np.asarray(x)[:, chosen], y)
        np.testing.assert_allclose(probs[:, j], peer.predict_proba(np.asarray(x)[:, chosen]), atol=2e-4)


@pytest.mark.parametrize("k", [2, 3])
def test_regressions_are_scikit_learns_far_from_zero(k):
    x, y, _ = blobs(60, k, 3)
    x = np.asarray(x + jnp.array([300.0, -2e3, 1e4]))
    weights = (np.arange(60) < 40).astype(np.float32)
    columns = candidates.combinations(3, 2)[1]
    fitted = logistic.fit(jnp.asarray(x), jnp.asarray(y), jnp.asarray(weights), k, columns)
    probs = fitted.probs(x)
    for j, chosen in enumerate(columns):
        exact = x[:, chosen] - x[:, chosen].mean(axis=0, dtype=np.float64)  # the peer, too, is lost without it
        peer = LogisticRegression(solver="newton-cholesky", tol=1e-8).fit(exact, y, weights)
        np.testing.assert_allclose(probs[:, j], peer.predict_proba(exact), atol=1e-5)


def test_without_any_weight_a_regression_finds_all_classes_equally_likely():
    x, y, _ = blobs(20, 2, 2)
    fitted = logistic.fit(x, jnp.asarray(y), jnp.zeros(20), 2, np.array([[0], [1]]))
    np.testing.assert_allclose(fitted.probs(x), 0.5, atol=1e-6)


def test_a_regression_of_one_class_alone_stays_finite():
    x, _, _ = blobs(20, 2, 2)
    fitted = logistic.fit(x, jnp.zeros(20, int), jnp.ones(20), 2, np.array([[0], [1]]))
    probs = fitted.probs(x)
    assert jnp.isfinite(probs).all()
    assert (probs[..., 0] > 0.99).all()


def test_neighbours_are_scikit_learns():
    x, y, _ = blobs(60, 3, 4)
    columns = candidates.combinations(4, 2)[1]
    fitted = neighbours.fit(x, jnp.asarray(y), jnp.ones(60), 3, columns)
    other = np.asarray(blobs(30, 3, 4, seed=1)[0])
    for j, chosen in enumerate(columns):
        peer = KNeighborsClassifier(5).fit(np.asarray(x)[:, chosen], y)
        np.testing.assert_allclose(fitted.probs(other)[:, j], peer.predict_proba(other[:, chosen]), atol=1e-6)


@pytest.mark.parametrize("k", [2, 3])
def test_the_band_has_the_best_weighted_f1_with_abstaining_as_a_class_of_its_own(k):
    rng = np.random.default_rng(0)
    probs, y = rng.dirichlet(np.ones(k), size=(50, 4)), rng.integers(0, k, 50)
    widths = bands.best_widths(jnp.asarray(probs, jnp.float32), jnp.asarray(y), prior=1 / k)
    for j in range(4):
        scores = []
        for width in bands.WIDTHS:
            votes = np.where(probs[:, j].max(axis=1) >= 1 / k + width, probs[:, j].argmax(axis=1), -1)
            scores.append(f1_score(y, votes, average="weighted", labels=range(k)))
        best = np.flatnonzero(np.isclose(scores, max(scores), atol=1e-6)).max()
        assert float(widths[j]) == pytest.approx(bands.WIDTHS[best], abs=1e-6)


def test_with_class_names_0_and_1_abstaining_is_not_class_0():
    # The released IWS compares labels 0 and 1 with votes -1, 0 and 1, so that abstaining on class 0 counts as right.
    probs, y = jnp.full((10, 1, 2), 0.5), jnp.zeros(10, int)
    votes = bands.votes(probs, jnp.full(1, 0.25), prior=0.5)
    assert (votes == -1).all()
    assert float(bands.weighted_f1(votes, y, 2)[0]) == 0.0


@pytest.mark.slow
def test_chosen_heuristics_of_mixed_families_vote_as_they_did_among_the_candidates():
    x, y, _ = blobs(40, 3, 3)
    found = candidates.fit(x, jnp.asarray(y), jnp.ones(40), 3, candidates.FAMILIES, candidates.combinations(3, 2))
    assert found.sizes == (3, 3, 3, 3, 3)
    numbers = jnp.array([14, 0, 7, 4, 9])
    np.testing.assert_allclose(found.take(numbers).probs(x), found.probs(x)[:, numbers], atol=1e-6)
    moved = found.take(numbers).put(jnp.array(3), found.take(jnp.array([1, 12])))
    np.testing.assert_allclose(moved.probs(x), found.probs(x)[:, jnp.array([14, 0, 7, 1, 12])], atol=1e-6)
    assert found.take(numbers).features == [[1, 2], [0], [0, 2], [1], [0]]


@pytest.mark.slow
def test_combinations_can_be_drawn_and_bad_ones_are_refused():
    drawn = candidates.combinations(6, 2, limit=4, key=jax.random.key(0))
    assert [part.shape for part in drawn] == [(4, 1), (4, 2)]
    assert len({tuple(row) for row in drawn[1].tolist()}) == 4
    with pytest.raises(ValueError, match="cardinality must lie between 1 and the 3 features, got 4"):
        candidates.combinations(3, 4)
    with pytest.raises(ValueError, match="limit must not be negative, and needs a key"):
        candidates.combinations(3, 1, limit=2)
    with pytest.raises(ValueError, match="families must name some of"):
        candidates.fit(jnp.ones((4, 3)), jnp.zeros(4, int), jnp.ones(4), 2, (), candidates.combinations(3, 1))
