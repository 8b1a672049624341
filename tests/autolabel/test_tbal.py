"""The state machine on small Gaussians: what it spends, what it may see, and that it can be killed anywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.autolabel import Config, Oracle, Roles, Training, baselines, mlp, tbal
from zsml_jax.autolabel.confidence import AdaptiveTemperature, Colander, TemperatureScaling, TopLabelHistogram
from zsml_jax.train.checkpoint import Checkpointer

KEY = jax.random.key(0)
CLASSIFIER = mlp(3, (), 3)
CONFIG = Config(
    CLASSIFIER,
    3,
    Roles(selection=10, calibration=20, threshold=80, audit=30),
    confidence=TemperatureScaling(),
    training=Training(learning_rate=0.3, epochs=6, batch_size=8, select_every=3),
    seed=12,
    batch=6,
    budget=24,
    method="sigma",
    min_count=5,
)


def pool(n=400, seed=0, spread=0.7):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = 2 * np.eye(3)[labels] + spread * rng.normal(size=(n, 3))
    return jnp.asarray(x, jnp.float32), labels


def same(a, b):
    a, b = (s._replace(key=jax.random.key_data(s.key)) for s in (a, b))
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture(scope="module")
def finished_run():
    x, labels = pool()
    oracle = Oracle(labels)
    return tbal.run(x, oracle, CONFIG, key=KEY), oracle, x, labels


@pytest.mark.slow
def test_a_run_labels_most_of_an_easy_pool_and_says_how_well(finished_run):
    state, oracle, _, labels = finished_run
    assert int(state.round) == CONFIG.rounds == 3
    assert oracle.spent == int(state.spent) == CONFIG.roles.total + CONFIG.budget
    mask = np.asarray(state.auto_mask)
    assert mask.sum() == round(float(state.coverage) * (400 - CONFIG.roles.total))
    assert float(state.coverage) > 0.6
    np.testing.assert_allclose(state.error(labels), (np.asarray(state.auto_labels)[mask] != labels[mask]).mean())
    assert (np.asarray(state.auto_labels)[~mask] == -1).all()
    audit = state.audit(CONFIG)
    rows = np.asarray(state.held)[-30:]
    given = np.asarray(state.labels)[rows]
    assert audit.count == (given >= 0).sum() and audit.errors == ((given >= 0) & (given != labels[rows])).sum()
    assert audit.upper > audit.errors / audit.count


def test_what_a_human_labelled_is_never_labelled_again_and_roles_are_disjoint(finished_run):
    state, oracle, _, labels = finished_run
    known, mask = np.asarray(state.known), np.asarray(state.auto_mask)
    assert not (mask & (known >= 0)).any()
    np.testing.assert_array_equal(known[oracle.asked], labels[oracle.asked])
    assert set(np.asarray(state.held)).isdisjoint(np.asarray(state.order)[: int(state.count)])
    assert len(set(np.asarray(state.held))) == CONFIG.roles.total


def test_labels_were_above_their_rounds_threshold(finished_run):
    state = finished_run[0]
    for row in np.flatnonzero(state.auto_mask):
        limit = state.thresholds[state.labelled_in[row], state.labels[row]]
        assert state.scores[row] >= limit


def test_labels_that_were_not_asked_for_change_no_score_and_no_decision_bit_by_bit(finished_run):
    state, oracle, x, labels = finished_run
    others = np.setdiff1d(np.arange(len(labels)), oracle.asked)
    permuted = labels.copy()
    permuted[others] = np.random.default_rng(1).permutation(labels[others])
    assert (permuted != labels).sum() > 50
    assert same(tbal.run(x, Oracle(permuted), CONFIG, key=KEY), state)


@pytest.mark.parametrize(
    "changed",
    [
        {"confidence": Colander(epochs=4, checks=2)},
        {"method": "certified", "error": 0.3, "shared": True},
        {"query": "coreset"},
        pytest.param({"roles": Roles(20, 30, 90), "reuse": True}, marks=pytest.mark.slow),
        pytest.param({"query": "entropy", "confidence": TopLabelHistogram(10)}, marks=pytest.mark.slow),
        pytest.param({"labels_when": "last_round", "confidence": AdaptiveTemperature(steps=5)}, marks=pytest.mark.slow),
    ],
)
def test_a_simulation_too_reads_no_label_that_was_not_asked_for(changed):
    x, labels = pool(n=300)
    config = dataclasses.replace(CONFIG, **changed)
    simulate = jax.jit(lambda labels: tbal.simulate(x, labels, config, key=KEY))
    state = simulate(labels)
    others = np.flatnonzero(np.asarray(state.known) < 0)
    permuted = labels.copy()
    permuted[others] = np.random.default_rng(1).permutation(labels[others])
    assert (permuted != labels).sum() > 50 and float(state.coverage) > 0.1
    assert same(simulate(permuted), state)


def test_a_run_that_is_killed_after_any_round_ends_as_if_it_had_not_been(finished_run, tmp_path):
    state, _, x, labels = finished_run
    calls = []

    def dies(rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return Oracle(labels)(rows)

    with Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(KeyboardInterrupt):
            tbal.run(x, dies, CONFIG, key=KEY, checkpoints=checkpoints)
        assert checkpoints.latest_step == 2
    oracle = Oracle(labels)
    with Checkpointer(tmp_path) as checkpoints:
        assert same(tbal.run(x, oracle, CONFIG, key=KEY, checkpoints=checkpoints), state)
    assert oracle.spent == CONFIG.roles.total + CONFIG.budget
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(ValueError, match="oracle must give the labels that it"):
        tbal.run(x, Oracle((labels + 1) % 3), CONFIG, key=KEY, checkpoints=checkpoints)


@pytest.mark.slow
def test_a_simulation_is_the_run_and_vmaps_over_keys(finished_run):
    state, _, x, labels = finished_run
    simulate = lambda key: tbal.simulate(x, labels, CONFIG, key=key)
    together = jax.jit(jax.vmap(simulate))(jnp.stack([KEY, jax.random.key(1)]))
    np.testing.assert_array_equal(together.known[0], state.known)
    np.testing.assert_allclose(together.coverage[0], state.coverage, atol=0.01)
    np.testing.assert_allclose(together.error(labels)[0], state.error(labels), atol=0.01)
    assert not np.array_equal(together.held[0], together.held[1])


def test_other_numbers_do_not_retrace(finished_run):
    _, _, x, labels = finished_run
    before = tbal._advance._cache_size()
    changed = dataclasses.replace(CONFIG, error=0.2, training=dataclasses.replace(CONFIG.training, learning_rate=0.1))
    tbal.run(x, Oracle(labels), changed, key=jax.random.key(3))
    assert tbal._advance._cache_size() == before


def test_equal_settings_made_anew_do_not_retrace(finished_run):
    _, _, x, labels = finished_run
    assert mlp(3, (), 3) == CLASSIFIER != mlp(3, (4,), 3)
    before = tbal._advance._cache_size()
    tbal.run(x, Oracle(labels), dataclasses.replace(CONFIG, classifier=mlp(3, (), 3)), key=KEY)
    assert tbal._advance._cache_size() == before


def with_rate(config, rate):
    return dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=rate))


def test_training_that_diverged_is_told_and_its_round_is_not_saved(tmp_path):
    x, labels = pool()
    message = r"training diverged in round 1: .* a smaller training.learning_rate than 1e\+30 would do"
    with Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=message):
            tbal.run(x, Oracle(labels), with_rate(CONFIG, 1e30), key=KEY, checkpoints=checkpoints)
        assert checkpoints.latest_step is None


def test_a_classifier_that_diverged_labels_nothing_even_where_all_that_is_left_is_labelled():
    x, labels = pool()
    simulate = lambda rate: tbal.simulate(x, labels, with_rate(baselines.active(CONFIG), rate), key=KEY)
    states = jax.vmap(simulate)(jnp.array([0.3, 1e30]))
    assert states.diverged.tolist() == [False, True]
    assert float(states.coverage[0]) > 0.6 and float(states.coverage[1]) == 0


def test_the_papers_reuse_divides_all_labelled_points_anew_each_round():
    x, _ = pool()
    config = CONFIG.as_in_the_papers()
    state = tbal._tell(tbal.start(x, config, key=KEY), jnp.zeros(config.roles.total + 12, jnp.int32))
    state = state._replace(labels=state.labels.at[state.held[:30]].set(0))
    for round_key in jax.random.split(KEY, 2):
        selection, calibration, threshold = tbal._parts(state, config, round_key)
        assert selection.weights.sum() == 80
        assert not set(calibration.rows[calibration.weights > 0].tolist()) & set(
            threshold.rows[threshold.weights > 0].tolist()
        )
        assert calibration.weights.sum() + threshold.weights.sum() == 80
        assert calibration.weights.sum() == 80 * 20 // 100
    assert not selection.weights[:30].any()


def test_fresh_thresholds_see_each_labelled_point_in_one_round_only():
    x, _ = pool()
    config = dataclasses.replace(CONFIG, fresh=True)
    state = tbal._tell(tbal.start(x, config, key=KEY), jnp.zeros(config.roles.total + 12, jnp.int32))
    used = [tbal._parts(state._replace(round=jnp.int32(r)), config, KEY)[2].weights for r in range(config.rounds)]
    np.testing.assert_array_equal(sum(used), np.ones(80))


@pytest.mark.slow
@pytest.mark.parametrize("name", baselines.BASELINES)
def test_baselines_spend_the_same_and_label_once(name):
    x, labels = pool(seed=1)
    oracle = Oracle(labels)
    config = baselines.BASELINES[name](CONFIG)
    state = tbal.run(x, oracle, config, key=KEY)
    assert oracle.spent == CONFIG.roles.total + CONFIG.budget
    assert set(np.asarray(state.labelled_in)) <= {-1, config.rounds - 1}
    if name in ("AL", "PL"):
        left = np.asarray(state.in_pool & (state.known < 0))
        np.testing.assert_array_equal(state.auto_mask, left)


@pytest.mark.slow
@pytest.mark.parametrize("query", ["random", "entropy", "coreset"])
def test_every_strategy_and_colander_run_to_the_end(query):
    x, labels = pool(seed=2)
    config = dataclasses.replace(CONFIG, query=query, confidence=Colander(epochs=4, checks=2), method="certified")
    state = tbal.run(x, Oracle(labels), config, key=KEY)
    assert int(state.round) == 3 and int(state.spent) == CONFIG.roles.total + CONFIG.budget


@pytest.mark.slow
def test_certified_thresholds_with_too_few_points_label_nothing():
    x, labels = pool()
    state = tbal.run(x, Oracle(labels), dataclasses.replace(CONFIG, method="certified", error=0.01), key=KEY)
    assert float(state.coverage) == 0 and np.isinf(state.thresholds).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: tbal.start(x[:150], CONFIG, key=KEY), "more rows than the 140 .* budget of 24, got 150"),
        (lambda x, y: tbal.start(x.at[7, 1].set(jnp.nan), CONFIG, key=KEY), "features must be finite; row 7 is not"),
        (lambda x, y: Oracle(np.array([0.5])), "labels must be a row of class indices"),
        (lambda x, y: Oracle(y)(np.array([400])), "rows must lie between 0 and 399, got 400"),
        (lambda x, y: Roles(1, 0, 5), "calibration must be at least 1, got 0"),
        (
            lambda x, y: dataclasses.replace(CONFIG, budget=3),
            "budget must be at least the 12 points of the seed, got 3",
        ),
        (lambda x, y: dataclasses.replace(CONFIG, query="best"), "query must be one of random"),
        (lambda x, y: dataclasses.replace(CONFIG, reuse=True), "reuse must be False with"),
        (lambda x, y: tbal.tell(tbal.start(x, CONFIG, key=KEY), np.array([1]), np.array([0])), "rows must be the 152"),
    ],
)
def test_bad_input_is_told(unchecked_types, call, message):
    with pytest.raises(ValueError, match=message):
        call(*pool())


def test_a_round_does_not_begin_before_all_wanted_labels_were_told():
    x, _ = pool()
    state = tbal.start(x, CONFIG, key=KEY)
    with pytest.raises(ValueError, match="state must be told the 152 labels that it wants before it advances"):
        tbal.advance(state, x, CONFIG)


def test_a_state_that_wants_nothing_is_told_nothing(unchecked_types):
    x, _ = pool()
    state = tbal.start(x, CONFIG, key=KEY)
    state = state._replace(asked=jnp.full_like(state.asked, -1))
    rows = tbal.wanted(state)
    assert len(rows) == 0 and same(tbal.tell(state, rows, []), state)
    with pytest.raises(ValueError, match=r"labels must have shape \(0,\)"):
        tbal.tell(state, rows, np.array([1]))


def test_a_label_that_is_no_class_is_refused(unchecked_types):
    state = tbal.start(pool()[0], CONFIG, key=KEY)
    rows = tbal.wanted(state)
    with pytest.raises(ValueError, match="labels must lie between 0 and 2, got 3"):
        tbal.tell(state, rows, np.full(len(rows), 3))
