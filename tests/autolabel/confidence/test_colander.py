"""Colander's objective by a loop over points, its start at the softmax, and what the released leak looks like."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.autolabel.confidence.test_confidence import problem
from zsml_jax.autolabel import Outputs, thresholds
from zsml_jax.autolabel.confidence import Colander, Softmax
from zsml_jax.autolabel.confidence.unfitted import log_odds
from zsml_jax.train.shuffling import epoch_order

KEY = jax.random.key(0)


def objective_by_definition(g, t, predicted, labels, alpha, penalty):
    taken, wrong, mass = 0.0, 0.0, 0.0
    for row, y_hat, y in zip(g, predicted, labels, strict=True):
        s = 1 / (1 + np.exp(-alpha * (row[y_hat] - t[y_hat])))
        taken, mass, wrong = taken + s, mass + s, wrong + s * (y_hat != y)
    return -taken / len(g) + penalty * wrong / mass


def test_the_papers_loss_is_p3():
    outputs, labels = problem(0, n=40)
    function = Colander.paper(penalty=7.0)
    net = function._initial(outputs, jnp.full(40, 1 / 40), KEY)
    net = net._replace(thresholds=jnp.array([0.2, 0.4, 0.6]))
    wrong = (outputs.predicted != labels).astype(jnp.float32)
    z = jnp.concatenate([outputs.logits, outputs.hidden], axis=1)
    batch = (z, outputs.logits, outputs.predicted, wrong, jnp.full(40, 1 / 40))
    part = {"first": net.first, "second": net.second, "thresholds": net.thresholds}
    ours = function._loss(net, part, batch, jnp.float32(3.0))
    hidden = np.tanh(np.asarray(z) @ np.asarray(net.first)) @ np.asarray(net.second)
    g = np.exp(hidden) / np.exp(hidden).sum(1, keepdims=True)
    assert net.first.shape == (7, 14) and net.second.shape == (14, 3)
    theirs = objective_by_definition(g, [0.2, 0.4, 0.6], np.asarray(outputs.predicted), np.asarray(labels), 3.0, 7.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    # What is scored is g at the predicted class.
    np.testing.assert_allclose(function.score(net, outputs), g[np.arange(40), np.asarray(outputs.predicted)], rtol=1e-4)


@pytest.mark.slow
def test_the_repaired_form_begins_at_the_classifier_and_orders_points_as_its_softmax_does():
    outputs, labels = problem(1, n=80)
    function = Colander(learning_rate=0.0, epochs=2, checks=1)
    net = function.fit(outputs, labels, weights=jnp.ones(80), key=KEY)
    scores = function.score(net, outputs)
    np.testing.assert_allclose(scores, log_odds(outputs.logits, outputs.predicted), rtol=1e-5)
    softmax = np.asarray(Softmax().score((), outputs))
    np.testing.assert_allclose(jax.nn.sigmoid(scores), softmax, rtol=1e-4)


@pytest.mark.slow
def test_it_learns_a_confidence_that_the_softmax_cannot_have():
    """Whether a prediction is right is written into a hidden feature, of the fitted and of other points alike."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1200)
    right = rng.random(1200) < 0.7
    predicted = np.where(right, labels, 1 - labels)
    logits = jnp.asarray(np.eye(2)[predicted] + 0.3 * rng.random((1200, 1)), jnp.float32)
    hidden = np.stack([2.0 * right - 1 + 0.5 * rng.normal(size=1200), rng.normal(size=1200)], axis=1)
    outputs, labels = Outputs(logits, jnp.asarray(hidden, jnp.float32)), jnp.asarray(labels)
    part = lambda rows: outputs.take(jnp.arange(1200)[rows])
    function = Colander(epochs=300, checks=6)
    net = function.fit(part(slice(0, 400)), labels[:400], weights=jnp.ones(400), key=KEY)
    coverage = {}
    for name, score in {
        "colander": lambda o: function.score(net, o),
        "softmax": lambda o: Softmax().score((), o),
    }.items():
        held, pool = part(slice(400, 800)), part(slice(800, 1200))
        found = thresholds.estimate(
            score(held), held.predicted, held.predicted == labels[400:800], error=0.1, n_classes=2, method="sigma"
        )
        coverage[name] = float(found.accepts(score(pool), pool.predicted).mean())
    assert net.step > 0
    assert coverage["colander"] > 0.3 > 0.1 > coverage["softmax"]


def test_the_papers_training_takes_a_fresh_gradient_at_every_step_of_an_epoch():
    outputs, labels = problem(3, n=40)
    function = Colander.paper(penalty=7.0, alpha=1.0, learning_rate=0.02, epochs=1, batch_size=20)
    weights = jnp.full(40, 1 / 40)
    init_key, _, order_key = jax.random.split(KEY, 3)
    start = function._initial(outputs, weights, init_key)
    part = {"first": start.first, "second": start.second, "thresholds": start.thresholds}
    z, predicted = jnp.concatenate(outputs, axis=1), outputs.predicted

    def loss(part, rows):
        g = jax.nn.softmax(jnp.tanh(z[rows] @ part["first"]) @ part["second"])[jnp.arange(20), predicted[rows]]
        taken = jax.nn.sigmoid(g - part["thresholds"][predicted[rows]])
        return -taken.mean() + 7 * (taken * (predicted != labels)[rows]).sum() / taken.sum()

    decay = optax.add_decayed_weights(0.1, mask={"first": True, "second": True, "thresholds": False})
    optimizer = optax.chain(decay, optax.adam(optax.cosine_decay_schedule(0.02, 2)))
    state = optimizer.init(part)
    for rows in epoch_order(40, jnp.int32(0), key=order_key).reshape(2, 20):
        updates, state = optimizer.update(jax.grad(loss)(part, rows), state, part)
        part = optax.apply_updates(part, updates)
    net = function.fit(outputs, labels, weights=weights, key=KEY)
    assert int(net.step) == 2
    for name, expected in part.items():
        np.testing.assert_allclose(getattr(net, name), expected, atol=1e-5)


def told_by_a_feature(right):
    """Points of which one hidden feature, 1 or -1 in turn, says whether the prediction is right as ``right`` has it."""
    feature = 1.0 - 2 * (jnp.arange(200) % 2)
    logits = jnp.stack([jnp.full(200, 1.0), jnp.zeros(200)], axis=1)
    return Outputs(logits, feature[:, None]), jnp.where(right(feature), 0, 1)


def test_the_step_is_chosen_on_points_that_were_not_trained_on():
    function = Colander(epochs=30, checks=3, held_out=0.5)
    held = jax.random.uniform(jax.random.split(KEY, 3)[1], (200,)) < 0.5

    def step(right, weights=None, function=function):
        outputs, labels = told_by_a_feature(right)
        weights = jnp.ones(200) if weights is None else weights
        return int(function.fit(outputs, labels, weights=weights, key=KEY).step)

    assert step(lambda feature: feature > 0) in (10, 20, 30)
    assert step(lambda feature: (feature > 0) != held) == 0
    # Points without weight do not choose.
    some = held & (jnp.arange(200) < 100)
    assert step(lambda feature: (feature > 0) != some, weights=1.0 - some) in (10, 20, 30)
    assert step(lambda feature: feature > 0, function=dataclasses.replace(function, held_out=0.0)) == 30


def test_held_out_points_do_not_train():
    function = Colander(epochs=4, checks=1, held_out=0.5)
    outputs, labels = told_by_a_feature(lambda feature: feature > 0)
    held = jax.random.uniform(jax.random.split(KEY, 3)[1], (200,)) < 0.5
    some = held & (jnp.arange(200) < 20)
    fit = lambda outputs, labels: function.fit(outputs, labels, weights=jnp.ones(200), key=KEY)
    other = outputs._replace(hidden=jnp.where(some[:, None], 3 * outputs.hidden, outputs.hidden))
    nets = fit(outputs, labels), fit(other, jnp.where(some & (labels == 1), 0, labels))
    assert int(nets[0].step) == 4
    jax.tree.map(np.testing.assert_array_equal, *nets)


def leaked_scores(net_scores, right):
    """What the first release computed: the 0/1 mistake bit in the place of the predicted class picks the component."""
    return jnp.where(right, net_scores[:, 0], net_scores[:, 1])


def test_the_leak_of_the_first_release_has_the_signature_that_published_figures_show():
    """A collapsed network, a useless surrogate, and yet exactly the right points labelled: the report of A.5."""
    rng = np.random.default_rng(0)
    n, k = 6000, 10
    labels = rng.integers(0, k, n)
    right = rng.random(n) < 0.55
    predicted = np.where(right, labels, (labels + 1) % k)
    # g is 1/k everywhere up to a hair, and the same for all points.
    g = jnp.asarray(np.full((n, k), 0.1) + 1e-4 * np.arange(k, 0, -1), jnp.float32)
    surrogate = jax.nn.sigmoid(0.1 * (g[jnp.arange(n), predicted] - 0.1))
    assert abs(float(surrogate.mean()) - 0.5) < 1e-3
    held, pool = slice(0, 3000), slice(3000, None)

    def labelled(scores):
        found = thresholds.estimate(scores[held], predicted[held], right[held], error=0.05, n_classes=k, method="sigma")
        accepted = np.asarray(found.accepts(scores[pool], predicted[pool]))
        return accepted.mean(), (~right[pool])[accepted].mean() if accepted.any() else 0.0

    leaked, error = labelled(leaked_scores(g, right))
    assert leaked == pytest.approx(right[pool].mean()) and error == 0.0
    honest, _ = labelled(g[jnp.arange(n), predicted])
    assert honest == 0.0
    # Nor does the leak care what error is allowed.
    found = [
        thresholds.estimate(
            leaked_scores(g, right)[held], predicted[held], right[held], error=e, n_classes=k, method="sigma"
        )
        for e in (0.01, 0.1)
    ]
    np.testing.assert_array_equal(found[0].values, found[1].values)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"start": "zero"}, "start must be 'classifier' or 'random', got 'zero'"),
        ({"features": "all"}, "features must be 'both', 'logits' or 'hidden', got 'all'"),
        ({"held_out": 1.0}, r"held_out must lie in \[0, 1\), got 1.0"),
        ({"checks": 400}, "checks must be at least 1 and at most epochs, got 400 and 300"),
    ],
)
def test_bad_settings_are_told(unchecked_types, changed, message):
    with pytest.raises(ValueError, match=message):
        Colander(**changed)
