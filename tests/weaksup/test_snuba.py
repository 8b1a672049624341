import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weaksup.partly import KEY, blobs
from zsml_jax import weaksup
from zsml_jax.train import checkpoint
from zsml_jax.weaksup import aggregator, snuba
from zsml_jax.weaksup.functions import LabelingFunctions
from zsml_jax.weaksup.heuristics import bands, candidates
from zsml_jax.weaksup.image_domains import bit_reversal

FEW = snuba.Config(rounds=4)


@functools.cache
def found(k=2, polarity="multipolar"):
    x, truth, labels = blobs(k=k)
    return snuba.fit(x, labels, snuba.Config(polarity=polarity, rounds=4), key=KEY), x, truth, labels


def released_aggregator(votes, *, steps=1000, rate=1e-3, penalty=1e-6):
    """The released weights after plain steps, votes 1, -1 and 0."""
    weights, momentum = np.ones(votes.shape[1]), 0.0
    cast = np.abs(votes).sum(axis=0)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-votes @ weights))
        accuracy = ((votes.T @ (2 * p - 1)) / (cast + 1e-8) + 1) / 2
        target = np.clip(np.log(accuracy / (1 - accuracy)), -10, 10)
        momentum = 0.95 * cast * (weights - target) / cast.sum() + 0.05 * momentum
        weights = weights - rate * momentum
        weights = np.sign(weights) * np.maximum(np.abs(weights) - penalty, 0) / (1 + 0.5 * penalty)
    return weights


def test_the_aggregator_has_the_weights_of_a_thousand_released_steps():
    rng = np.random.default_rng(0)
    truth = rng.choice([-1, 1], 500)
    right = rng.random((500, 5)) < [0.9, 0.8, 0.7, 0.6, 0.55]
    votes = np.where(rng.random((500, 5)) < [0.9, 0.3, 0.6, 0.8, 0.5], np.where(right, 1, -1) * truth[:, None], 0)
    ours = aggregator.fit_weights(jnp.asarray(np.select([votes == 1, votes == -1], [1, 0], -1)), 2)
    np.testing.assert_allclose(ours, released_aggregator(votes), atol=5e-3)


@pytest.mark.slow
def test_a_heuristic_that_never_votes_is_never_kept():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    # Four constant columns, on which no stump is sure of anything: they would be the farthest in every later round.
    x = np.ones((400, 7), np.float32)
    x[:, :3] = rng.normal(size=(400, 3)) + 0.6 * (2 * truth[:, None] - 1)
    labels = np.where(np.arange(400) < 100, truth, -1)
    functions = snuba.fit(x, labels, snuba.Config(rounds=6, families=("stump",)), key=KEY)
    assert len(functions) == 8
    assert (np.asarray(functions.fitted_votes) != -1).any(axis=0).all()


@pytest.mark.parametrize("polarity", ["unipolar", "multipolar"])
def test_features_that_tell_nothing_are_refused(polarity):
    # Two classes that alternate: every probability is a half, inside of every abstain band.
    x, labels = np.repeat(np.arange(20.0, dtype=np.float32), 2)[:, None], np.tile([0, 1], 20)
    config = snuba.Config(polarity=polarity, families=("stump", "logistic"), rounds=3)
    with pytest.raises(weaksup.NoFunctionsError, match="no heuristic is sure enough of any example to vote on it"):
        snuba.fit(x, labels, config, key=KEY)


@pytest.mark.slow
def test_the_first_round_keeps_the_three_most_often_right_and_later_ones_add_distance():
    functions, x, _, labels = found()
    rows = np.flatnonzero(labels != -1)
    every = candidates.fit(x[rows], jnp.asarray(labels[rows]), jnp.ones(60), 2, ("stump", "logistic"),
                           candidates.combinations(4, 1))  # fmt: skip
    probs = every.probs(x[rows])
    widths = bands.best_widths(probs, jnp.asarray(labels[rows]), prior=0.5)
    right = (np.asarray(bands.votes(probs, widths, prior=0.5)) == labels[rows][:, None]).mean(axis=0)
    best = np.argsort(-right, kind="stable")[:3]
    expected = bands.votes(every.probs(x), widths, prior=0.5)[:, best]
    np.testing.assert_array_equal(functions.fitted_votes[:, :3], expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_second_round_keeps_the_best_mean_of_accuracy_and_of_distance_to_where_anyone_voted(seed):
    # The release counts, at each example, how many of the kept functions vote there.
    x, _, labels = blobs(d=8, seed=seed, spread=3.0)
    rows = np.flatnonzero(labels != -1)
    functions = snuba.fit(x, labels, snuba.Config(rounds=2), key=KEY)
    votes = np.asarray(functions.fitted_votes)
    first = jnp.asarray(np.pad(votes[:, :3], ((0, 0), (0, 3)), constant_values=-1))
    vague = snuba._vague(first, first[rows], jnp.asarray(3), 2)
    assert vague.any()
    labelled, columns = jnp.asarray(labels[rows]), candidates.combinations(8, 1)
    every = candidates.fit(x[rows], labelled, vague.astype(jnp.float32), 2, ("stump", "logistic"), columns)
    widths = bands.best_widths(every.probs(x[rows]), labelled, prior=0.5)
    given = np.asarray(bands.votes(every.probs(x), widths, prior=0.5))
    voting, covered = given != -1, (votes[:, :3] != -1).any(axis=1)[:, None]
    distance = 1 - (voting & covered).sum(axis=0) / (voting | covered).sum(axis=0)
    score = ((given[rows] == labels[rows][:, None]).mean(axis=0) + distance) / 2
    best = np.where(voting[rows].any(axis=0), score, -np.inf).argmax()
    np.testing.assert_array_equal(votes[:, 3], given[:, best])


@pytest.mark.slow
def test_a_copy_of_what_is_kept_is_at_no_distance():
    functions, x, _, _ = found()
    rows = x[:50]
    covered = (functions.votes(rows)[:, :1] != -1).any(axis=1)
    same = candidates.Candidates(functions.heuristics.take(jnp.array([0])).parts)
    width = jnp.broadcast_to(functions.widths[0], (sum(same.sizes),))
    part = int(functions.heuristics.part[0])
    distance = snuba._jaccard_distance(same, width, functions.prior, rows, covered)
    assert float(distance[part]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "polarity"), [(2, "multipolar"), (3, "multipolar"), (3, "unipolar")])
def test_functions_vote_on_new_examples_as_on_those_of_the_fit(k, polarity):
    functions, x, truth, _ = found(k, polarity)
    assert isinstance(functions, LabelingFunctions)
    votes = np.asarray(functions.votes(x))
    np.testing.assert_array_equal(votes, functions.fitted_votes)
    voted = votes != -1
    # A unipolar function may be sure of the rest alone, and then says nothing.
    assert polarity == "unipolar" or voted.any(axis=0).all()
    assert (votes == truth[:, None])[voted].mean() > 1 / k + 0.2


def test_unipolar_functions_vote_for_their_class_only():
    functions, x, _, _ = found(3, "unipolar")
    votes = np.asarray(functions.votes(x))
    for j, target in enumerate(np.asarray(functions.target)):
        assert set(np.unique(votes[:, j])) <= {-1, target}
    assert set(np.asarray(functions.target)) == {0, 1, 2}


def test_with_three_classes_class_0_counts_as_much_as_the_others():
    # The release weights the overlap by the number of the class, and asks whether that number is near 1/2: renaming
    # the classes changes what it finds.
    functions, x, _, labels = found(3)
    order = np.array([2, 0, 1])
    renamed = np.where(labels == -1, -1, order[labels])
    other = snuba.fit(x, renamed, FEW, key=KEY)
    back = np.where(np.asarray(other.fitted_votes) == -1, -1, np.argsort(order)[np.asarray(other.fitted_votes)])
    np.testing.assert_array_equal(back, functions.fitted_votes)


def test_vague_is_a_largest_posterior_near_that_of_a_guess():
    votes = jnp.asarray([[0, 0, 0], [0, 1, -1], [-1, -1, -1]], jnp.int8)
    vague = snuba._vague(jnp.tile(votes[:1], (20, 1)), votes, jnp.asarray(3), 3)
    assert vague.tolist() == [False, True, True]


def test_permuted_features_give_the_same_votes():
    functions, x, _, labels = found()
    order = bit_reversal(4)
    permuted = snuba.fit(x[:, order], labels, FEW, key=KEY)
    np.testing.assert_array_equal(permuted.fitted_votes, functions.fitted_votes)


def test_jit_equals_eager_and_another_key_is_not_traced_again():
    functions, x, _, labels = found()
    traces = []
    jitted = jax.jit(lambda x, key: traces.append(1) or snuba.fit(x, labels, FEW, key=key))
    inside = jitted(x, KEY)
    jitted(x, jax.random.key(1))
    assert len(traces) == 1
    m = len(functions)
    np.testing.assert_array_equal(inside.fitted_votes[:, :m], functions.fitted_votes)
    assert not inside.kept[m:].any()
    assert (inside.votes(x)[:, m:] == -1).all()


def test_a_set_survives_a_checkpoint(tmp_path):
    functions, x, _, _ = found()
    checkpoint.save(tmp_path / "functions", functions)
    restored = checkpoint.restore(tmp_path / "functions", like=functions)
    np.testing.assert_array_equal(restored.votes(x), functions.fitted_votes)


def test_bad_input_is_refused(unchecked_types):
    x, _, labels = blobs()
    for bad, message in [
        (np.full(240, -1), "labels must hold at least one label, but all are -1"),
        (np.where(labels == 1, 2, labels), "there is none of class .1."),
        (labels[:10], "labels must be 240 integers"),
        (labels - 1, "labels must be classes, or -1 for none, got -2"),
    ]:
        with pytest.raises(ValueError, match=message):
            snuba.fit(x, bad, FEW, key=KEY)
    with pytest.raises(ValueError, match="row 3 is not"):
        snuba.fit(x.at[3, 0].set(jnp.nan), labels, FEW, key=KEY)
    with pytest.raises(ValueError, match="cardinality must lie between 1 and the 4 features"):
        snuba.fit(x, labels, snuba.Config(cardinality=5), key=KEY)
    with pytest.raises(ValueError, match="labels decide shapes"):
        jax.jit(lambda labels: snuba.fit(x, labels, FEW, key=KEY))(labels)
    with pytest.raises(ValueError, match="features must have 4 columns"):
        found()[0].votes(x[:, :3])
    for options, message in [
        ({"polarity": "both"}, "polarity must be"),
        ({"rounds": 0}, "rounds and first_keep"),
        ({"coverage_rows": -1}, "must not be negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            snuba.Config(**options)
