"""The search on a made-up model whose best adapter is known: one layer was moved, by a Monarch product."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax import peft
from zsml_jax.peft import method_file, monarch, search
from zsml_jax.peft.monarch import Monarch, MonarchShape
from zsml_jax.train import Checkpointer, optimizer, sweep

WIDTH, BUDGET, RUNGS = 8, 40, (15, 45)
RATES = (0.0, 0.05)


class Two(nn.Module):
    """Two layers beside each other."""

    @nn.compact
    def __call__(self, x):
        dense = lambda name: nn.Dense(WIDTH, use_bias=False, name=name)(x)
        return jnp.concatenate([dense("moved"), dense("kept")], -1)


def task_of(seed=0, **changes):
    """The target is the model's output with a product of 2 blocks of rank 2 added to one of its kernels."""
    rng = np.random.default_rng(seed)
    apply = lambda params, x: Two().apply({"params": params}, x)
    draw = lambda size: rng.normal(size=size).astype(np.float32)
    shape = MonarchShape(WIDTH, WIDTH, 2, 2)
    planted = monarch.delta_weight(Monarch(draw(shape.first), draw(shape.second)), shape)
    params = Two().init(jax.random.key(seed), np.ones((1, WIDTH), np.float32))["params"]
    target = {**params, "moved": {"kernel": params["moved"]["kernel"] + planted}}
    x = draw((96, WIDTH))
    rows = {"x": x, "y": np.asarray(apply(target, x))}
    run = peft.apply_fn(apply)
    error = lambda adapter, params, rows: (run(adapter, params, rows["x"]) - rows["y"]) ** 2
    parts = {
        "adapt": lambda method, key, params: peft.init(apply, params, method, x[:1], key=key),
        "loss": lambda adapter, params, rows, key: error(adapter, params, rows).mean(),
        "score": lambda adapter, params, rows: -error(adapter, params, rows).mean(axis=-1),
        "optimizer": lambda adapter, rate: optimizer.by_path(peft.optimizer_rules(adapter, optimizer.adamw(rate))[:-1]),
        "params": params,
        "train": jax.tree.map(lambda leaf: leaf[:64], rows),
        "validation": jax.tree.map(lambda leaf: leaf[64:], rows),
        "batch_size": 32,
    }
    return search.Task(**{**parts, **changes})


METHODS = (
    peft.MoRe(blocks=1, block_rank=1, targets=["moved"]),
    peft.MoRe(blocks=1, block_rank=2, targets=["moved"]),
    peft.MoRe(blocks=2, block_rank=2, targets=["moved"]),
    peft.MoRe(blocks=2, block_rank=2, targets=["kept"]),
    peft.MoRe(blocks=2, block_rank=4, targets=["moved"]),
)


def run(task, methods=METHODS, rates=RATES, key=0, **options):
    options = {"budget": BUDGET, "rungs": RUNGS, "key": jax.random.key(key)} | options
    return search.search(task, methods, rates, **options)


@pytest.fixture(scope="module")
def found_methods():
    """The methods of which adapters were traced, as often as they were."""
    return []


@pytest.fixture(scope="module")
def found(found_methods):
    plain = task_of().adapt

    def adapt(method, key, params):
        found_methods.append(method)
        return plain(method, key, params)

    return run(task_of(adapt=adapt))


@pytest.mark.slow
def test_the_search_finds_the_planted_adapter(found):
    assert found.best.method == METHODS[2] and found.best.learning_rate == 0.05
    assert found.best.score > -0.05
    assert [entry.method for entry in found.front] == [METHODS[0], METHODS[2]]
    assert found.front[0].score < found.front[1].score
    interval = found.best.interval
    assert len(found.best.scores) == 3 and interval.low < found.best.score < interval.high


def test_no_candidate_over_the_budget_is_trained(found, found_methods):
    assert [candidate.method for candidate in found.over_budget] == [METHODS[4]]
    assert found.over_budget[0].parameters == 64
    assert max(entry.parameters for entry in found.entries) <= BUDGET
    assert len(found.entries) == 4 * len(RATES)
    # Its shapes were counted once; a program would have traced it again.
    assert found_methods.count(METHODS[4]) == 1 < found_methods.count(METHODS[2])


def test_points_go_on_with_all_their_seeds_and_the_first_front_is_never_cut(found):
    first, last = found.rungs
    assert [rung.steps for rung in found.rungs] == [15, 60]
    points = first.kept.reshape(-1, 3)
    assert (points // 3 == points[:, :1] // 3).all() and (points % 3 == [0, 1, 2]).all()
    np.testing.assert_array_equal(last.trials, first.kept)
    entries = found.entries
    scores = first.metric.reshape(-1, 3).mean(axis=1)
    fronts = search.nondominated(np.array([entry.parameters for entry in entries]), scores)
    assert set(np.flatnonzero(fronts == 0)) <= set(points[:, 0] // 3)
    assert {entry.steps for entry in entries} == {15, 60}


@pytest.mark.slow
def test_ranks_that_share_a_program_do_what_they_do_alone(found):
    alone = run(task_of(), mask_ranks=False)
    for shared, own in zip(found.entries, alone.entries, strict=True):
        assert shared.steps == own.steps
        # One block is LoRA, whose start is that of the rank alone; elsewhere the draws differ.
        np.testing.assert_allclose(shared.scores, own.scores, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    options = {"methods": METHODS[:1], "rates": (0.0, 0.02, 0.05), "rungs": (4, 4)}
    task = task_of()
    whole = run(task, **options)
    advance, calls = sweep.advance, []

    def killed(step, study, **arguments):
        calls.append(arguments.get("repeat", 1))
        if len(calls) == last:
            raise KeyboardInterrupt
        return advance(step, study, **arguments)

    for last in (2, 5, 10**6):
        calls.clear()
        monkeypatch.setattr(sweep, "advance", killed)
        with Checkpointer(tmp_path) as checkpoints:
            try:
                resumed = run(task, **options, checkpoints=checkpoints, chunk=2)
            except KeyboardInterrupt:
                assert last < 10
    # After 2 steps, then after the first rung and 2 steps; the last run does the rest only.
    assert calls == [2, 1]
    assert resumed.entries == whole.entries and resumed.front == whole.front
    jax.tree.map(np.testing.assert_array_equal, resumed.rungs, whole.rungs)
    with Checkpointer(tmp_path) as checkpoints:
        assert run(task, **options, checkpoints=checkpoints, chunk=2).entries == whole.entries
    assert calls == [2, 1]


@pytest.mark.slow
def test_a_point_that_diverges_loses_to_all_others():
    found = run(task_of(), methods=METHODS[:1], rates=(float("inf"), 0.05), rungs=(2, 2))
    assert np.isnan(found.entries[0].score) and found.best.learning_rate == 0.05
    with pytest.raises(ValueError, match="learning_rates must leave at least one point that does not diverge"):
        run(task_of(), methods=METHODS[:1], rates=(float("inf"),), rungs=(1,))


def test_fronts_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    costs, scores = rng.integers(0, 4, 30), rng.integers(0, 5, 30).astype(float)
    fronts, left = np.full(30, -1), set(range(30))
    for number in range(30):
        beats = lambda i, j: (costs[i] <= costs[j] and scores[i] >= scores[j]
                              and (costs[i] < costs[j] or scores[i] > scores[j]))  # fmt: skip
        front = {j for j in left if not any(beats(i, j) for i in left)}
        for j in front:
            fronts[j] = number
        left -= front
    np.testing.assert_array_equal(search.nondominated(costs, scores), fronts)
    assert search.nondominated(np.array([1, 2]), np.array([np.nan, 0.0])).tolist() == [0, 0]


def test_what_cannot_be_searched_is_refused():
    task = task_of()
    with pytest.raises(ValueError, match="seeds must be at least 3, got 2"):
        run(task, seeds=2)
    with pytest.raises(ValueError, match="budget must allow at least the smallest candidate's 16 parameters, got 15"):
        run(task, budget=15)
    with pytest.raises(ValueError, match="learning_rates must hold at least one value, each once"):
        run(task, rates=(0.1, 0.1))
    with pytest.raises(ValueError, match="batch_size must be at least 1 and at most the 64 training rows, got 65"):
        task_of(batch_size=65)


@pytest.mark.parametrize("method", [METHODS[2], peft.LoRA(rank=2, ranks={"moved": 1}, layers=[0]), peft.IA3()])
def test_a_method_comes_back_from_its_file(tmp_path, method):
    path = tmp_path / "best.json"
    method_file.write_method(path, method, 0.01, parameters=32)
    assert method_file.read_method(path) == (method, 0.01, {"parameters": 32})


def test_a_file_that_is_no_method_is_refused(tmp_path):
    path = tmp_path / "best.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="must hold a method, its config and its learning_rate"):
        method_file.read_method(path)
    for name, config, message in (
        ("LoRa", {}, "unknown method 'LoRa'. Did you mean 'LoRA'"),
        ("LoRA", {"rnk": 1}, r"fields that LoRA does not know: \['rnk'\]"),
        ("LoRA", {"rank": 0}, "rank must be at least 1, got 0"),
    ):
        path.write_text(json.dumps({"method": name, "config": config, "learning_rate": 1}))
        with pytest.raises(ValueError, match=message):
            method_file.read_method(path)
    with pytest.raises(ValueError, match="method must be one of BOFT, DoRA"):
        method_file.write_method(path, peft.Method(), 0.1)
