"""What all label models promise, on votes drawn from a known model."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.train import checkpoint
from zsml_jax.weaksup import label_model, synthetic

MODELS = {
    "majority_vote": label_model.majority_vote.fit,
    "dawid_skene": label_model.dawid_skene.fit,
    "naive_bayes": label_model.naive_bayes.fit,
    "metal": label_model.metal.fit,
    "flyingsquid": label_model.flyingsquid.fit,
}
LEARNED = [name for name in MODELS if name != "majority_vote"]
ACCURACIES = np.array([0.9, 0.85, 0.6, 0.55, 0.7, 0.65])


def draw(seed, n=300, **options):
    return synthetic.independent_votes(jax.random.key(seed), n, ACCURACIES, **{"propensities": 0.7, **options})


def draw_where_abstaining_informs(n):
    """Three functions that are right at 0.85 and vote on a tenth of class 0 and on six tenths of class 1."""
    voting = np.array([0.1, 0.6])
    table = np.concatenate([[1 - voting], voting * np.array([[0.85, 0.15], [0.15, 0.85]])])
    return synthetic.votes_of_tables(jax.random.key(1), n, np.stack([table] * 3), class_balance=np.full(2, 0.5))


def accuracy(problem, posterior):
    return float((posterior.argmax(axis=1) == problem.labels).mean())


def mean_log_likelihood(model, votes):
    tables = np.asarray(model.log_likelihood, np.float64)
    joint = model.log_prior + sum(table[vote + 1] for table, vote in zip(tables, np.asarray(votes).T, strict=True))
    return np.logaddexp.reduce(joint, axis=1).mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("k", [2, 3])
def test_accuracies_are_identified_from_many_votes(name, k):
    problem = draw(0, 40_000, k=k)
    fitted = MODELS[name](problem.votes, k)
    found = fitted.accuracies
    expected = np.broadcast_to(ACCURACIES, found.shape)
    if name == "flyingsquid" and k > 2:
        # One against the rest: a vote for any other class than a wrong one is right as well.
        voted = 1 / k
        expected = ACCURACIES * voted + (1 - voted) * (ACCURACIES + (1 - ACCURACIES) * (k - 2) / (k - 1))
        expected = np.broadcast_to(expected, found.shape)
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("name", ["dawid_skene", "metal"])
def test_full_tables_are_identified_where_functions_err_more_often_on_one_class(name):
    rng = np.random.default_rng(0)
    tables = np.moveaxis(rng.dirichlet(np.ones(3), size=(6, 2)), 1, 2)  # abstain, 0, 1 given each class
    tables[:, 1, 0] += 1.0
    tables[:, 2, 1] += 1.0
    tables /= tables.sum(axis=1, keepdims=True)
    balance = np.array([0.6, 0.4])
    problem = synthetic.votes_of_tables(jax.random.key(1), 60_000, tables, class_balance=balance)
    options = {"abstains_inform": True} if name == "dawid_skene" else {"class_balance": balance, "steps": 4000}
    fitted = MODELS[name](problem.votes, 2, **options)
    rows = slice(0, None) if name == "dawid_skene" else slice(1, None)
    np.testing.assert_allclose(np.exp(fitted.log_likelihood)[:, rows], tables[:, rows], atol=0.03)


@pytest.mark.parametrize("name", LEARNED)
def test_the_posterior_comes_near_that_of_bayes_rule(name):
    problem = draw(2, 20_000)
    difference = MODELS[name](problem.votes, 2).posterior(problem.votes) - problem.oracle.posterior(problem.votes)
    assert jnp.abs(difference).mean() < 0.02


def test_the_oracle_is_bayes_rule():
    problem = draw(3, 50, k=3, class_balance=np.array([0.5, 0.3, 0.2]))
    tables, prior = np.exp(problem.oracle.log_likelihood), np.array([0.5, 0.3, 0.2])
    for vote, posterior in zip(problem.votes, problem.oracle.posterior(problem.votes), strict=True):
        joint = prior * np.prod([tables[j, vote[j] + 1] for j in range(len(ACCURACIES))], axis=0)
        np.testing.assert_allclose(posterior, joint / joint.sum(), atol=1e-5)


def test_no_model_is_better_than_the_oracle_and_learned_ones_beat_counting():
    problems = [draw(seed, 2000) for seed in range(5)]
    mean = {
        name: np.mean([accuracy(p, fit(p.votes, 2).posterior(p.votes)) for p in problems])
        for name, fit in MODELS.items()
    }
    best = np.mean([accuracy(p, p.oracle.posterior(p.votes)) for p in problems])
    for name in LEARNED:
        assert mean["majority_vote"] < mean[name] <= best + 0.002


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_classes_may_be_renamed(name):
    problem = draw(4, 400, k=3)
    order = np.array([2, 0, 1])
    renamed = np.where(problem.votes == -1, -1, order[np.asarray(problem.votes)])
    plain = MODELS[name](problem.votes, 3).posterior(problem.votes)
    other = MODELS[name](renamed, 3).posterior(renamed)
    np.testing.assert_allclose(other[:, order], plain, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_posteriors_are_distributions_even_where_all_abstain(name):
    problem = draw(5)
    votes = np.array(problem.votes)
    votes[0] = -1
    fitted = MODELS[name](votes, 2)
    posterior = fitted.posterior(votes)
    np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)
    assert jnp.isfinite(posterior).all()
    assert fitted.predict(votes)[0] == -1
    assert fitted.posterior(votes[:1]).shape == (1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_jit_equals_eager_vmap_equals_a_loop_and_nothing_is_traced_twice(name):
    votes = [draw(seed, 64).votes for seed in range(3)]
    call = lambda votes: MODELS[name](votes, 2).posterior(votes)
    traces = []
    counted = jax.jit(lambda votes: traces.append(1) or call(votes))
    looped = jnp.stack([call(v) for v in votes])
    np.testing.assert_allclose(jnp.stack([counted(v) for v in votes]), looped, atol=1e-4)
    assert len(traces) == 1
    np.testing.assert_allclose(jax.jit(jax.vmap(call))(jnp.stack(votes)), looped, atol=1e-3)


@pytest.mark.slow
def test_blocks_of_rows_give_what_one_block_gives(monkeypatch):
    problem = draw(6, 9000)
    votes = np.asarray(problem.votes, np.int8)
    for name, fit in MODELS.items():
        fitted = fit(votes, 2)
        np.testing.assert_allclose(
            fitted.posterior(votes)[-100:], fitted.posterior(votes[-100:]), atol=1e-6, err_msg=name
        )


def test_fitted_models_survive_jit_and_a_checkpoint(tmp_path):
    votes = draw(7).votes
    fitted = {name: fit(votes, 2) for name, fit in MODELS.items()}
    chex.assert_trees_all_equal(jax.jit(lambda tree: tree)(fitted), fitted)
    checkpoint.save(tmp_path / "models", fitted)
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path / "models", like=fitted), fitted)


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (np.zeros((0, 3), int), "votes must have shape"),
        (np.zeros((4, 3)), "votes must hold integers"),
        (np.full((4, 3), -1), "all functions abstain"),
        (np.full((4, 3), 2), "votes must lie between -1 .abstain. and 1, got values from 2 to 2"),
        (np.full((4, 3), -2), "votes must lie between"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_unsound_votes_are_refused(name, votes, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        MODELS[name](votes, 2)


@pytest.mark.parametrize("name", ["metal", "flyingsquid"])
def test_moment_methods_refuse_fewer_than_three_functions(name):
    with pytest.raises(ValueError, match="votes must come from at least 3 functions, got 2"):
        MODELS[name](np.zeros((4, 2), int), 2)


def test_a_balance_that_is_none_and_foreign_columns_are_refused(unchecked_types):
    votes = np.asarray(draw(8).votes)
    with pytest.raises(ValueError, match="class_balance must be positive and sum to 1"):
        label_model.metal.fit(votes, 2, class_balance=np.array([0.9, 0.2]))
    with pytest.raises(ValueError, match=r"class_balance must have shape \(2,\)"):
        label_model.dawid_skene.fit(votes, 2, class_balance=np.ones(3) / 3)
    with pytest.raises(ValueError, match="votes must have 6 columns"):
        label_model.naive_bayes.fit(votes, 2).posterior(votes[:, :3])


def test_em_ends_where_the_likelihood_no_longer_grows():
    votes = draw(9).votes
    for name in ("dawid_skene", "naive_bayes"):
        assert MODELS[name](votes, 2).converged
        assert not MODELS[name](votes, 2, max_iterations=1).converged


@pytest.mark.parametrize("abstains_inform", [False, True])
def test_the_likelihood_never_falls_from_one_step_of_em_to_the_next(abstains_inform):
    votes = draw_where_abstaining_informs(2000).votes
    options = {"abstains_inform": abstains_inform, "tolerance": -1.0}
    steps = [label_model.dawid_skene.fit(votes, 2, max_iterations=i, **options) for i in range(12)]
    assert (np.diff([mean_log_likelihood(step, votes) for step in steps]) > -1e-6).all()


def test_where_abstaining_informs_examples_without_a_vote_count_in_the_prior():
    problem = draw_where_abstaining_informs(10_000)
    options = {"tolerance": 1e-7, "max_iterations": 2000}
    fitted = label_model.dawid_skene.fit(problem.votes, 2, abstains_inform=True, **options)
    assert fitted.converged
    np.testing.assert_allclose(np.exp(fitted.log_prior), 0.5, atol=0.03)
    best = accuracy(problem, problem.oracle.posterior(problem.votes))
    assert accuracy(problem, fitted.posterior(problem.votes)) > best - 0.01


def test_posteriors_against_the_rest_do_not_underflow_and_log_odds_decide_where_they_round_to_one():
    table = jnp.array([[0.0, 0, 0], [40, 60, -50], [-40, -50, -60], [-130, -131, -132]])  # abstain, 0, 1, 2
    model = label_model.TripletModel(table[None], prior_log_odds=-jnp.log(2 * jnp.ones(3)), accuracies=jnp.ones((3, 1)))
    votes = np.array([[-1], [0], [1], [2]])
    rare = np.exp([0.0, -1, -2])
    expected = [np.full(3, 1 / 3), [0.5, 0.5, 0], np.exp([0, -10, -20]), rare / rare.sum()]
    np.testing.assert_allclose(model.posterior(votes), expected, atol=1e-4)
    np.testing.assert_array_equal(model.predict(votes), [-1, 1, 0, 0])


def test_a_hundred_functions_that_seldom_vote_together_are_right_together():
    problem = synthetic.independent_votes(jax.random.key(0), 300, np.full(100, 0.5), k=10, propensities=0.2)
    model = label_model.flyingsquid.fit(problem.votes, 10)
    assert (model.predict(problem.votes) == problem.labels).mean() > 0.95
    assert accuracy(problem, model.posterior(problem.votes)) > 0.95


def test_triplets_give_a_distribution_where_as_many_functions_vote_for_each_class():
    problem = synthetic.independent_votes(jax.random.key(0), 2000, np.full(200, 0.7), k=10)
    model = label_model.flyingsquid.fit(problem.votes, 10)
    votes = np.arange(200)[None] % 10
    tables = np.asarray(model.log_odds, np.float64)
    log_odds = np.asarray(model.prior_log_odds) + tables[np.arange(200), votes[0] + 1].sum(axis=0)
    assert log_odds.max() < -104  # the exponential of which is no float32
    expected = np.exp(log_odds - np.logaddexp.reduce(log_odds))
    np.testing.assert_allclose(model.posterior(votes)[0], expected, atol=1e-4)
    np.testing.assert_array_equal(model.predict(votes), [log_odds.argmax()])


def test_weights_are_the_log_odds_of_accuracies_on_labels():
    votes = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, -1, 1]])
    labels = np.array([0, 0, 1, 1])
    fitted = label_model.weighted_vote.fit(votes, 2, labels=labels, smoothing=1.0)
    expected = [np.log(5 / 1), np.log(3 / 2), 0.0]  # 4 of 4, 2 of 3 and 1 of 4 right, one right and one wrong added
    np.testing.assert_allclose(fitted.weights, expected, rtol=1e-5)


def test_a_weighted_vote_needs_weights_or_labels_and_not_both(unchecked_types):
    votes = np.zeros((2, 2), int)
    with pytest.raises(ValueError, match="weights or labels must be given, got neither"):
        label_model.weighted_vote.fit(votes, 2)
    with pytest.raises(ValueError, match="weights or labels must be given, and not both"):
        label_model.weighted_vote.fit(votes, 2, weights=np.ones(2), labels=np.array([0, 1]))
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\)"):
        label_model.weighted_vote.fit(votes, 2, weights=np.ones(3))
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        label_model.weighted_vote.fit(votes, 2, weights=np.array([1.0, -1.0]))
