"""Losses by their formulas, and training on the part of a buffer that counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.autolabel import Classifier, Training, mlp, objectives, queries, training
from zsml_jax.autolabel.outputs import Outputs

KEY = jax.random.key(0)
CLASSIFIER = mlp(2, (), 2)


def line(n=60, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    x = np.stack([2.0 * labels - 1, np.zeros(n)], axis=1) + 0.4 * rng.normal(size=(n, 2))
    return jnp.asarray(x, jnp.float32), jnp.asarray(labels, jnp.int32)


def trained(settings, count=60, key=KEY, buffer=60):
    x, labels = line()
    rows = jnp.arange(buffer) % 60
    labelled = training.Labelled(rows, labels[rows], jnp.int32(count))
    held = training.Held(rows[:0], labels[:0], jnp.zeros(0))
    return training.fit(CLASSIFIER, x, labelled, held, settings, key=key), x, labels


SETTINGS = Training(learning_rate=0.5, epochs=8, batch_size=16, enough=0.0, select_every=0)


@pytest.mark.parametrize("objective", ["cross_entropy", "squentropy", "crl", "fmfp", "mixup"])
def test_every_objective_separates_two_clouds(objective):
    params, x, labels = trained(dataclasses.replace(SETTINGS, objective=objective))
    assert (CLASSIFIER.apply(params, x).predicted == labels).mean() > 0.95


@pytest.mark.slow
def test_one_step_of_sam_takes_the_gradient_at_the_ascended_point():
    settings = dataclasses.replace(SETTINGS, objective="fmfp", epochs=1, batch_size=60, momentum=0.0, radius=0.1)
    params, x, labels = trained(settings)
    first = CLASSIFIER.init(jax.random.split(KEY)[0])
    loss = lambda p: objectives.cross_entropy(CLASSIFIER.apply(p, x).logits, labels).mean()
    gradient = jax.grad(loss)(first)
    norm = jnp.sqrt(sum((g**2).sum() for g in jax.tree.leaves(gradient)))
    ascended = jax.tree.map(lambda p, g: p + 0.1 * g / norm, first, gradient)
    # The decay belongs to the descent, at the point that is moved.
    expected = jax.tree.map(lambda p, g: p - 0.5 * (g + 1e-3 * p), first, jax.grad(loss)(ascended))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), params, expected)


def test_entries_beyond_the_count_are_not_trained_on():
    settings = dataclasses.replace(SETTINGS, epochs=3, batch_size=10)
    x, labels = line()
    held = training.Held(jnp.arange(0), labels[:0], jnp.zeros(0))
    rows = jnp.arange(60)
    fit = lambda y: training.fit(CLASSIFIER, x, training.Labelled(rows, y, jnp.int32(30)), held, settings, key=KEY)
    jax.tree.map(np.testing.assert_array_equal, fit(labels), fit(labels.at[30:].set(1 - labels[30:])))


def test_the_checkpoint_is_the_first_of_the_best_ones_on_the_held_out_points():
    x, labels = line()
    rows, all_ = jnp.arange(60), jnp.ones(60)
    # It begins with the classes swapped, and training turns it round.
    kernel = jnp.array([[2.0, -2.0], [0.0, 0.0]])
    swapped = Classifier(lambda key: [(kernel, jnp.zeros(2))], CLASSIFIER.apply)
    settings = dataclasses.replace(SETTINGS, epochs=6, select_every=1, learning_rate=0.1)
    labelled = training.Labelled(rows, labels, jnp.int32(60))

    def fit(held_labels, weights, **changed):
        held, changed = training.Held(rows, held_labels, weights), dataclasses.replace(settings, **changed)
        return training.fit(swapped, x, labelled, held, changed, key=KEY)

    accuracy = lambda params: float((CLASSIFIER.apply(params, x).predicted == labels).mean())
    equal = lambda a, b: all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))
    first, last = fit(labels, all_, enough=1.0), fit(labels, all_, select_every=0)
    assert accuracy(first) < 0.3 < 0.9 < accuracy(last)
    assert equal(fit(1 - labels, all_), first)
    assert accuracy(fit(labels, all_)) >= accuracy(last)
    # A class that no prediction can be is missed at each look alike.
    assert equal(fit(jnp.full(60, 2), all_), first)
    assert equal(fit(1 - labels, jnp.zeros(60)), last)


def test_squentropy_is_cross_entropy_and_the_mean_square_of_the_wrong_logits():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    expected = [
        -row[y] + np.log(np.exp(row).sum()) + sum(row[j] ** 2 for j in range(4) if j != y) / 3
        for row, y in zip(logits, labels, strict=True)
    ]
    ours = objectives.squentropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_ranking_loss_is_its_definition():
    rng = np.random.default_rng(0)
    logits, c = rng.normal(size=(5, 3)), rng.random(5)
    kappa = np.exp(logits).max(1) / np.exp(logits).sum(1)
    expected = [max(0, -np.sign(c[i] - c[i - 1]) * (kappa[i] - kappa[i - 1]) + abs(c[i] - c[i - 1])) for i in range(5)]
    np.testing.assert_allclose(objectives.correctness_ranking(jnp.asarray(logits), jnp.asarray(c)), expected, rtol=1e-5)


def outputs_of(margins, hidden=None):
    p = 0.5 + np.asarray(margins) / 2
    logits = jnp.log(jnp.asarray(np.stack([p, 1 - p], axis=1), jnp.float32))
    return Outputs(logits, jnp.zeros((len(p), 1)) if hidden is None else jnp.asarray(hidden, jnp.float32))


NONE = (jnp.zeros(1, jnp.int32), jnp.int32(0))


def test_margin_random_draws_among_twice_as_many_of_the_smallest_margins():
    outputs, seen = outputs_of(np.linspace(0.05, 0.9, 20)), set()
    available = jnp.ones(20, bool).at[0].set(False)
    for key in jax.random.split(KEY, 30):
        rows, there = queries.select("margin_random", outputs, available, NONE, 3, key=key)
        assert there.all() and len(set(rows.tolist())) == 3
        seen |= set(rows.tolist())
    assert seen == set(range(1, 7))


def test_entropy_takes_the_smallest_margins_of_two_classes():
    rows, _ = queries.select("entropy", outputs_of([0.9, 0.1, 0.5, 0.3]), jnp.ones(4, bool), NONE, 2, key=KEY)
    assert sorted(rows.tolist()) == [1, 3]


@pytest.mark.parametrize("offset", [0.0, 10_000.0])
def test_coreset_takes_the_farthest_point_again_and_again(offset):
    hidden = offset + np.array([[0.0], [1.0], [10.0], [6.0], [9.5]])
    labelled = (jnp.array([0]), jnp.int32(1))
    available = jnp.array([False, True, True, True, True])
    rows, there = queries.select("coreset", outputs_of([0.5] * 5, hidden), available, labelled, 3, key=KEY)
    assert rows.tolist() == [2, 3, 1] and there.all()


@pytest.mark.parametrize("strategy", ["random", "margin_random", "entropy", "coreset"])
def test_only_what_is_available_is_asked_for(strategy):
    outputs = outputs_of(np.linspace(0.1, 0.9, 6), np.arange(6)[:, None])
    available = jnp.array([False, True, False, True, False, False])
    rows, there = queries.select(strategy, outputs, available, NONE, 4, key=KEY)
    assert sorted(np.asarray(rows)[np.asarray(there)].tolist()) == [1, 3]


def test_bad_settings_are_told(unchecked_types):
    with pytest.raises(ValueError, match="objective must be one of cross_entropy"):
        Training(objective="hinge")
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        Training(epochs=0)
    with pytest.raises(ValueError, match="strategy must be one of random"):
        queries.select("best", outputs_of([0.1]), jnp.ones(1, bool), NONE, 1, key=KEY)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        queries.select("random", outputs_of([0.1]), jnp.ones(1, bool), NONE, 0, key=KEY)
