import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.weaksup.partly import KEY, blobs
from zsml_jax.weaksup import NoFunctionsError, iws, usefulness

FEW = iws.Config(queries=2, first_queries=2, ensemble=5)


def test_a_function_that_votes_evenly_for_both_classes_is_described_and_not_taken_for_a_silent_one():
    # The release finds silent functions by the sum of their votes, which is zero for these too.
    votes = jnp.array([[1, -1], [0, -1], [1, -1], [0, -1]])
    described = usefulness.describe(votes, 2)
    assert float(jnp.abs(described[0]).max()) == pytest.approx(2.0, abs=1e-5)
    np.testing.assert_allclose(described[1], 0, atol=1e-6)


def test_descriptions_keep_the_inner_products_of_votes():
    rng = np.random.default_rng(0)
    votes = rng.integers(-1, 2, (12, 7))
    signed = np.select([votes == 1, votes == 0], [1, -1], 0).T
    described = usefulness.describe(jnp.asarray(votes), 2)
    np.testing.assert_allclose(described @ described.T, signed @ signed.T, atol=1e-4)


def test_the_ensemble_learns_what_is_useful():
    rng = np.random.default_rng(0)
    described = jnp.asarray(rng.normal(size=(60, 3)), jnp.float32)
    useful = (described[:, 0] > 0).astype(jnp.float32)
    asked = jnp.arange(40)
    weights = jnp.ones(40)
    mean, deviation = usefulness.predict(described, asked, useful[:40], weights, KEY, ensemble=8, epochs=600)
    assert ((mean[40:] > 0.5) == (useful[40:] > 0.5)).mean() > 0.8
    assert (deviation > 0).all()


def test_the_final_sets_are_those_of_the_paper():
    mean, coverage = np.array([0.9, 0.65, 0.7, 0.4, 0.95]), np.array([0.1, 0.9, 0.2, 1.0, 0.5])
    asked, answers, silent = np.array([3, 4]), np.array([True, False]), np.zeros(5, bool)
    limited = iws.final_set(mean, coverage, asked, answers, silent, iws.Config(limit=2))
    assert limited.tolist() == [3, 1, 0]  # verified, then by (2 mean - 1) coverage: .27, .08 and .08
    every = iws.final_set(mean, coverage, asked, answers, silent, iws.Config(final="LSE-a"))
    assert every.tolist() == [3, 1, 0, 2] or every.tolist() == [3, 1, 2, 0]
    refused = np.zeros(2, bool)
    assert iws.final_set(mean - 0.6, coverage, asked, refused, silent, iws.Config()).tolist() == [0]
    with pytest.raises(NoFunctionsError, match="the expert called every function useless"):
        iws.final_set(mean, coverage, np.arange(5), np.zeros(5, bool), silent, iws.Config())


def heuristics_of(functions):
    return set(zip(functions.heuristics.part.tolist(), map(tuple, functions.heuristics.features), strict=True))


@pytest.mark.slow
def test_the_expert_is_asked_about_the_first_functions_too_and_a_useless_one_is_not_taken():
    # The release counts the first functions as useful whatever the expert says.
    x, _, labels = blobs()
    questions = []

    def never(question):
        questions.append(question)
        return False

    functions = iws.fit(x, labels, FEW, key=KEY, expert=never)
    refused = {(["stump", "logistic"].index(question.family), question.features) for question in questions}
    assert len(refused) == len(questions) == 4
    assert len(functions) >= 1
    assert not refused & heuristics_of(functions)


@pytest.mark.slow
def test_a_function_that_votes_as_often_for_both_classes_is_asked_about_and_taken():
    # The release takes those for silent whose votes, 1 and -1, sum to zero.
    truth = np.tile([0, 1], 20)
    x = (2.0 * truth[:, None] - 1) * np.array([[1, 2]], np.float32)
    labels = np.where(np.arange(40) < 20, truth, -1)
    config = iws.Config(families=("stump",), queries=1, first_queries=1, ensemble=5)
    questions = []
    functions = iws.fit(x, labels, config, key=KEY, expert=lambda question: not questions.append(question))
    assert {question.features for question in questions} == {(0,), (1,)}
    np.testing.assert_array_equal(functions.fitted_votes, np.stack([truth, truth], axis=1))


@pytest.mark.slow
def test_nobody_is_asked_about_a_function_that_never_votes():
    x, _, labels = blobs()
    x = np.concatenate([np.ones((len(x), 6), np.float32), x], axis=1)
    config = iws.Config(families=("stump",), queries=6, first_queries=4, ensemble=5)
    questions = []
    functions = iws.fit(x, labels, config, key=KEY, expert=lambda question: not questions.append(question))
    assert 1 <= len(questions) <= 4
    assert all(question.coverage > 0 and question.features[0] >= 6 for question in questions)
    assert (functions.fitted_votes != -1).any(axis=0).all()


@pytest.mark.slow
def test_a_question_tells_where_a_function_votes_for_what():
    x, _, labels = blobs()
    asked = []
    config = iws.Config(families=("stump",), queries=1, first_queries=3, ensemble=5)
    functions = iws.fit(x, labels, config, key=KEY, expert=lambda question: not asked.append(question))
    for question, votes in zip(asked, np.asarray(functions.fitted_votes).T, strict=False):
        read = np.asarray(x)[:, question.features[0]]
        assert question.coverage == pytest.approx((votes != -1).mean())
        assert [region.label for region in question.regions] == np.unique(votes[votes != -1]).tolist()
        for region in question.regions:
            there = votes == region.label
            assert region.coverage == pytest.approx(there.mean())
            assert (region.low, region.high) == ((read[there].min(),), (read[there].max(),))
        bar = 0.5 + functions.widths[asked.index(question)]
        assert f"a class has a probability of at least {bar:.2f}" in question.rule


@pytest.mark.slow
def test_labels_stand_in_for_the_expert_and_the_functions_vote_well():
    x, truth, labels = blobs()
    functions = iws.fit(x, labels, FEW, key=KEY)
    votes = np.asarray(functions.votes(x))
    np.testing.assert_array_equal(votes, functions.fitted_votes)
    assert (votes == truth[:, None])[votes != -1].mean() > 0.7
    again = iws.fit(x, labels, FEW, key=KEY)
    np.testing.assert_array_equal(again.fitted_votes, votes)


def test_a_person_answers_at_the_terminal(monkeypatch, capsys):
    replies = iter(["perhaps", "Y"])
    monkeypatch.setattr(builtins, "input", lambda prompt: next(replies))
    region = iws.Region(1, 0.25, (0.5,), (2.0,))
    question = iws.Question(3, "stump", (1,), 0.25, 0.9, "stump on feature 1 at 0.5", (region,))
    assert iws.ask_at_terminal(question, ["ham", "spam"]) is True
    told = capsys.readouterr().out
    assert "stump on feature 1 at 0.5" in told
    assert "spam for 25.0% of the examples: feature 1 from 0.5 to 2\n" in told
    assert "right for 90% of the labelled examples" in told


def test_candidates_that_are_all_silent_are_refused():
    # Two classes that alternate: every probability is a half, inside of every abstain band.
    x, labels = np.repeat(np.arange(20.0, dtype=np.float32), 2)[:, None], np.tile([0, 1], 20)
    config = iws.Config(families=("stump", "logistic"), queries=1, first_queries=1)
    with pytest.raises(NoFunctionsError, match="no heuristic is sure enough of any example to vote on it"):
        iws.fit(x, labels, config, key=KEY)


def test_bad_config_is_refused(unchecked_types):
    x, _, labels = blobs()
    with pytest.raises(ValueError, match="must not exceed the 8 candidates, got 29"):
        iws.fit(x, labels, iws.Config(), key=KEY)
    for options, message in [
        ({"final": "all"}, "final must be"),
        ({"queries": 0}, "queries, first_queries and ensemble"),
        ({"bar": 1.0}, "bar and accuracy must lie between 0 and 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            iws.Config(**options)


@pytest.mark.slow
def test_the_networks_are_traced_once_for_all_queries():
    x, _, labels = blobs()
    before = usefulness.predict._cache_size()
    iws.fit(x, labels, iws.Config(queries=3, first_queries=2, ensemble=4), key=KEY)
    assert usefulness.predict._cache_size() == before + 1
    assert jax.device_count() >= 1
