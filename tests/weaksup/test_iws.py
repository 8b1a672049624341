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
    nothing = iws.final_set(mean - 0.6, coverage, asked, ~answers & False, silent, iws.Config())
    assert nothing.tolist() == [4]


@pytest.mark.slow
def test_the_expert_is_asked_about_the_first_functions_too_and_a_useless_one_is_not_taken():
    x, _, labels = blobs()
    questions = []

    def never(question):
        questions.append(question)
        return False

    functions = iws.fit(x, labels, FEW, key=KEY, expert=never)
    assert len(questions) == 4
    assert len({question.number for question in questions}) == 4
    assert all(0 <= question.coverage <= 1 and "feature" in question.rule for question in questions)
    assert 1 <= len(functions) <= 100


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
    question = iws.Question(3, "stump", (1,), 0.25, 0.9, "stump on feature 1 at 0.5")
    assert iws.ask_at_terminal(question) is True
    assert "stump on feature 1 at 0.5" in capsys.readouterr().out


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
