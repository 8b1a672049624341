"""Peers are scikit-learn, numpy's array_split and scipy; problems are small and have overlapping classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from zsml_jax.autolabel import Outputs
from zsml_jax.autolabel import confidence as c
from zsml_jax.autolabel.confidence.binning import platt
from zsml_jax.autolabel.confidence.isotonic import non_falling

KEY = jax.random.key(0)
SHORT = {
    "softmax": c.Softmax(),
    "margin": c.Margin(),
    "energy": c.Energy(2.0),
    "temperature": c.TemperatureScaling(),
    "vector": c.VectorScaling(),
    "dirichlet": c.Dirichlet(max_iterations=50),
    "adaptive": c.AdaptiveTemperature(steps=5),
    "histogram": c.TopLabelHistogram(10),
    "scaling_binning": c.ScalingBinning(5),
    "isotonic": c.Isotonic(),
    "colander": c.Colander(epochs=6, checks=3),
    "colander_paper": c.Colander.paper(epochs=2, batch_size=32),
}
#: Their random draws have the shape of the rows, so that more rows are other draws.
RANDOM = ["adaptive", "colander", "colander_paper", "scaling_binning"]


def problem(seed=0, n=200, k=3, d=4, sharp=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = sharp * (rng.normal(size=(n, k)) + 1.2 * np.eye(k)[labels])
    hidden = rng.normal(size=(n, d))
    return Outputs(jnp.asarray(logits, jnp.float32), jnp.asarray(hidden, jnp.float32)), jnp.asarray(labels)


def fitted(function, outputs, labels, weights=None):
    weights = jnp.ones(len(labels)) if weights is None else weights
    return function.fit(outputs, labels, weights=weights, key=KEY)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHORT if name not in RANDOM])
def test_rows_without_weight_change_nothing(name):
    function, (outputs, labels) = SHORT[name], problem(1, n=120)
    wrong = jnp.concatenate([labels, (labels[:60] + 1) % 3])
    more = jax.tree.map(lambda x: jnp.concatenate([x, x[:60]]), outputs)
    weights = jnp.concatenate([jnp.ones(120), jnp.zeros(60)])
    alone, masked = fitted(function, outputs, labels), fitted(function, more, wrong, weights)
    np.testing.assert_allclose(function.score(alone, outputs), function.score(masked, outputs), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", [*RANDOM, "colander_last_step"])
def test_what_rows_without_weight_hold_changes_nothing_where_draws_have_the_shape_of_the_rows(name):
    functions = {**SHORT, "colander_last_step": c.Colander(epochs=6, checks=1, held_out=0.0)}
    function, (outputs, labels) = functions[name], problem(1, n=120)
    weights = (jnp.arange(120) % 3 > 0).astype(jnp.float32)
    other = jax.tree.map(lambda x: jnp.where(weights[:, None] > 0, x, 50 - 20 * x[::-1]), outputs)
    wrong = jnp.where(weights > 0, labels, (labels + 1) % 3)
    one, two = fitted(function, outputs, labels, weights), fitted(function, other, wrong, weights)
    jax.tree.map(np.testing.assert_array_equal, one, two)
    moved = function.score(fitted(function, outputs, wrong), outputs) - function.score(one, outputs)
    assert jnp.abs(moved).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_no_weight_at_all_still_gives_finite_scores(name):
    function, (outputs, labels) = SHORT[name], problem(2, n=60)
    scores = function.score(jax.jit(function.fit)(outputs, labels, weights=jnp.zeros(60), key=KEY), outputs)
    assert scores.shape == (60,) and np.isfinite(scores).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["temperature", "colander"])
def test_vmap_over_settings_and_keys_agrees_with_a_loop(name):
    function, (outputs, labels) = SHORT[name], problem(3, n=60)
    keys, weights = jax.random.split(KEY, 2), jnp.ones(60)
    one = lambda key: function.score(function.fit(outputs, labels, weights=weights, key=key), outputs)
    together = jax.vmap(one)(keys)
    for i, key in enumerate(keys):
        np.testing.assert_allclose(together[i], one(key), rtol=1e-4, atol=1e-4)


def test_temperature_scaling_is_scipys_minimum_of_the_likelihoods_loss():
    outputs, labels = problem(4, n=600, sharp=3.0)
    logits, rows = np.asarray(outputs.logits, np.float64), np.arange(600)
    nll = lambda t: (scipy.special.logsumexp(logits / t, axis=1) - (logits / t)[rows, np.asarray(labels)]).mean()
    best = scipy.optimize.minimize_scalar(nll, bounds=(0.1, 20), method="bounded").x
    expected = scipy.special.softmax(logits / best, axis=1).max(1)
    ours = c.TemperatureScaling().score(fitted(c.TemperatureScaling(), outputs, labels), outputs)
    np.testing.assert_allclose(ours, expected, atol=2e-3)


def test_dirichlet_without_a_penalty_is_scikit_learns_logistic_regression_on_log_probabilities():
    outputs, labels = problem(5, n=400)
    log_p = np.asarray(jax.nn.log_softmax(outputs.logits, axis=1))
    peer = LogisticRegression(C=np.inf, tol=1e-6, max_iter=2000).fit(log_p, np.asarray(labels))
    function = c.Dirichlet(penalty=0.0, tolerance=1e-5, max_iterations=500)
    map_ = fitted(function, outputs, labels)
    ours = jax.nn.softmax(log_p @ map_.matrix + map_.bias, axis=1)
    np.testing.assert_allclose(ours, peer.predict_proba(log_p), atol=5e-3)


def test_the_dirichlet_optimum_is_scipys():
    outputs, labels = problem(6, n=150)
    log_p = np.asarray(jax.nn.log_softmax(outputs.logits, axis=1), np.float64)

    def loss(x):
        matrix, bias = x[:9].reshape(3, 3), x[9:]
        z = log_p @ matrix + bias
        nll = (scipy.special.logsumexp(z, axis=1) - z[np.arange(150), np.asarray(labels)]).mean()
        return nll + 0.3 * (((1 - np.eye(3)) * matrix**2).sum() / 6 + (bias**2).mean())

    peer = scipy.optimize.minimize(loss, np.concatenate([np.eye(3).ravel(), np.zeros(3)]))
    map_ = fitted(c.Dirichlet(penalty=0.3), outputs, labels)
    assert map_.converged
    assert loss(np.concatenate([np.ravel(map_.matrix), map_.bias])) <= peer.fun + 1e-5


def test_isotonic_regression_is_scikit_learns_also_with_ties_and_weights():
    outputs, labels = problem(7, n=300)
    outputs = outputs._replace(logits=jnp.round(outputs.logits))
    scores = np.asarray(c.Softmax().score((), outputs))
    correct = np.asarray(outputs.predicted == labels, float)
    peer = IsotonicRegression(out_of_bounds="clip").fit(scores, correct)
    steps = fitted(c.Isotonic(), outputs, labels)
    np.testing.assert_allclose(c.Isotonic().score(steps, outputs), peer.predict(scores), atol=1e-5)
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=50), rng.random(50)
    peer = IsotonicRegression().fit(np.arange(50), values, sample_weight=weights).predict(np.arange(50))
    np.testing.assert_allclose(non_falling(jnp.asarray(values), jnp.asarray(weights)), peer, atol=1e-5)


def test_platts_sigmoid_is_scikit_learns_on_his_targets():
    rng = np.random.default_rng(0)
    odds = rng.normal(size=300)
    correct = (rng.random(300) < 1 / (1 + np.exp(-(2 * odds + 0.5)))).astype(float)
    hits = correct.sum()
    target = np.where(correct > 0, (hits + 1) / (hits + 2), 1 / (300 - hits + 2))
    doubled = np.concatenate([odds, odds])[:, None]
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(
        doubled, np.repeat([1, 0], 300), sample_weight=np.concatenate([target, 1 - target])
    )
    scale, bias = platt(jnp.asarray(odds), jnp.asarray(correct), jnp.full(300, 1 / 300))
    np.testing.assert_allclose([scale, bias], [peer.coef_[0, 0], peer.intercept_[0]], rtol=1e-3)


def test_top_label_bins_hold_equal_shares_of_each_class_as_array_split_makes_them():
    outputs, labels = problem(8, n=230)
    function = c.TopLabelHistogram(25)
    bins = fitted(function, outputs, labels)
    scores = np.asarray(c.Softmax().score((), outputs))
    predicted, correct = np.asarray(outputs.predicted), np.asarray(outputs.predicted == labels, float)
    ours = np.asarray(function.score(bins, outputs))
    for y in range(3):
        mine = np.flatnonzero(predicted == y)
        mine = mine[np.argsort(scores[mine])]
        assert bins.used[y] == len(mine) // 25
        for part in np.array_split(mine, len(mine) // 25):
            np.testing.assert_allclose(ours[part], correct[part].mean(), atol=1e-6)


def test_a_class_with_too_few_points_for_a_bin_keeps_its_softmax():
    outputs, labels = problem(9, n=90)
    function = c.TopLabelHistogram(80)
    np.testing.assert_array_equal(
        function.score(fitted(function, outputs, labels), outputs), c.Softmax().score((), outputs)
    )


@pytest.mark.slow
def test_scaling_binning_gives_means_of_the_sigmoid_within_its_bins():
    outputs, labels = problem(10, n=600)
    function = c.ScalingBinning(8)
    found = fitted(function, outputs, labels)
    scores = np.asarray(function.score(found, outputs))
    assert len(np.unique(scores)) == 8
    accuracy = np.asarray(outputs.predicted == labels).mean()
    # Calibrated on average, up to the noise of a third of 600 points.
    assert abs(scores.mean() - accuracy) < 0.08
    assert (np.diff(found.bins.values[0]) > 0).all()


def test_adaptive_temperatures_lower_the_likelihoods_loss_below_the_one_temperatures():
    outputs, labels = problem(11, n=300)
    # The scale of the logits differs by point, which one temperature cannot mend.
    outputs = outputs._replace(logits=outputs.logits * jnp.where(jnp.arange(300) % 2 == 0, 4.0, 0.5)[:, None])
    nll = lambda logits: -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()
    start = fitted(c.AdaptiveTemperature(learning_rate=0.0, steps=1), outputs, labels)
    one = fitted(c.TemperatureScaling(), outputs, labels)
    end = fitted(c.AdaptiveTemperature(steps=200), outputs, labels)
    np.testing.assert_allclose(nll(start.logits(outputs)), one.nll, rtol=1e-4)
    assert nll(end.logits(outputs)) < one.nll - 0.01
    np.testing.assert_array_equal(jnp.argmax(end.logits(outputs), axis=1), outputs.predicted)
