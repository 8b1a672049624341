import jax
import numpy as np
import pytest
import scipy.stats
from sklearn.decomposition import PCA

from tests.weaksup.partly import KEY
from zsml_jax.report import rank_plot
from zsml_jax.weaksup import comparison, image_domains, protocol, softmax_regression


def test_the_three_figures_by_hand():
    labels, predictions = np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, -1, -1])
    found = protocol.scores(labels, predictions, fallback=1)
    assert [float(v) for v in found] == pytest.approx([2 / 3, 0.6, 0.6])
    nothing = protocol.scores(labels, np.full(5, -1), fallback=1)
    assert np.isnan(nothing.accuracy)
    assert [float(v) for v in nothing[1:]] == pytest.approx([0.0, 0.6])


@pytest.mark.parametrize("stratified", [True, False])
def test_the_sample_is_seeded_without_repeats_and_has_every_class(stratified):
    labels = np.repeat([0, 1, 2], [900, 95, 5])
    draw = lambda seed: protocol.labelled_sample(labels, 100, key=jax.random.key(seed), stratified=stratified)
    first = draw(0)
    assert len(np.unique(first)) == 100
    assert set(labels[first]) == {0, 1, 2}
    np.testing.assert_array_equal(first, draw(0))
    assert (first != draw(1)).any()
    if stratified:
        counts = np.bincount(labels[first])
        assert abs(counts[0] - 90) <= 1
        assert abs(counts[1] - 9.5) <= 1
    with pytest.raises(ValueError, match="count must lie between the 3 classes and the 1000 rows, got 2"):
        protocol.labelled_sample(labels, 2, key=KEY)


def test_components_are_scikit_learns_and_know_the_given_rows_only():
    x = np.random.default_rng(0).normal(size=(80, 6)).astype(np.float32) * [5, 4, 3, 2, 1, 0.5]
    x = x.astype(np.float32)
    projection = protocol.principal_components(x[:50], 3)
    peer = PCA(3, svd_solver="full").fit(x[:50])
    np.testing.assert_allclose(np.abs(projection(x)), np.abs(peer.transform(x)), atol=1e-3)
    with pytest.raises(ValueError, match="count must lie between 1 and the lesser of 50 rows and 6 columns"):
        protocol.principal_components(x[:50], 7)


def test_permuting_pixels_changes_neither_components_nor_regressions():
    rng = np.random.default_rng(0)
    images, labels = rng.random((60, 6, 6)).astype(np.float32), np.where(np.arange(60) < 30, np.arange(60) % 3, -1)
    posteriors = []
    for each in (images, image_domains.permuted(images)):
        x = protocol.principal_components(each.reshape(60, -1), 10)(each.reshape(60, -1))
        posteriors.append(softmax_regression.fit_labelled(x, labels).posterior(x))
    # A component's sign, which its largest entry decides, changes the solver's way but not where it ends.
    np.testing.assert_allclose(*posteriors, atol=3e-3)


def test_permuting_twice_by_the_inverse_gives_the_image_back():
    images = np.arange(2 * 28 * 28).reshape(2, 28, 28)
    order = image_domains.bit_reversal(28)
    back = np.argsort(order)
    np.testing.assert_array_equal(image_domains.permuted(images)[:, back][:, :, back], images)
    assert sorted(order) == list(range(28))


def test_a_sphere_shows_the_image_on_the_half_that_sees_it():
    images = np.ones((3, 28, 28), np.float32)
    found = np.asarray(image_domains.spherical(images, key=KEY, size=40))
    assert found.shape == (3, 40, 40)
    assert found.min() >= 0
    assert found.max() == pytest.approx(1.0, abs=1e-5)
    # The square |x|, |y| <= 1 under stereographic projection covers a share of the sphere of its own, whichever way it
    # is turned: the integral of 4 / (1 + x^2 + y^2)^2 over the square, by 4 pi.
    grid = (np.arange(400) + 0.5) / 200 - 1
    x, y = np.meshgrid(grid, grid)
    share = (4 / (1 + x**2 + y**2) ** 2).sum() * (1 / 200) ** 2 / (4 * np.pi)
    areas = np.sin(np.pi * (2 * np.arange(40) + 1) / 80)[:, None] * np.ones(40)
    for sphere in found:
        assert (sphere * areas).sum() / areas.sum() == pytest.approx(share, abs=0.03)


def test_profiles_by_hand():
    losses = np.array([[1.0, 2.0, np.nan], [2.0, 1.0, 3.0]])
    np.testing.assert_allclose(comparison.profiles(losses, np.array([1.0, 2.0])), [[1 / 3, 2 / 3], [2 / 3, 1.0]])
    with pytest.raises(ValueError, match="losses must be positive"):
        comparison.profiles(np.zeros((2, 2)), np.ones(1))
    with pytest.raises(ValueError, match="one number at least for each problem"):
        comparison.profiles(np.full((2, 1), np.nan), np.ones(1))


def test_ranks_have_friedmans_test_and_nemenyis_difference():
    scores = np.random.default_rng(0).random((5, 12))
    scores[0] += 0.5
    found = comparison.compare_ranks(scores)
    assert found.p_value == pytest.approx(scipy.stats.friedmanchisquare(*scores).pvalue, rel=1e-6)
    # Demšar's table 5: q of five methods at 0.05 is 2.728.
    assert found.critical_difference == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 12)), rel=1e-3)
    assert int(found.mean_ranks.argmin()) == 0
    for group in found.groups:
        ranks = found.mean_ranks[list(group)]
        assert ranks.max() - ranks.min() <= found.critical_difference
    ties = comparison.compare_ranks(np.ones((3, 4)))
    assert ties.p_value == 1.0
    assert ties.groups == ((0, 1, 2),)
    with pytest.raises(ValueError, match="at least two methods and two problems"):
        comparison.compare_ranks(np.ones((1, 4)))
    with pytest.raises(ValueError, match="scores must be finite"):
        comparison.compare_ranks(np.full((2, 2), np.nan))


def test_the_diagram_shows_every_method_and_a_bar_for_each_group():
    ranks = {"a": 1.2, "b": 2.0, "c": 2.8}
    figure = rank_plot.critical_difference(ranks, [["a", "b"], ["b", "c"]], 0.9)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {"a  1.20", "b  2.00", "2.80  c"} <= set(texts)
    assert sum(line.get_linewidth() == 4 for line in figure.axes[0].lines) == 2
    with pytest.raises(ValueError, match="groups must name methods with ranks"):
        rank_plot.critical_difference(ranks, [["a", "z"]], 0.9)
    with pytest.raises(ValueError, match="at least two methods"):
        rank_plot.critical_difference({"a": 1.0}, [], 0.9)
