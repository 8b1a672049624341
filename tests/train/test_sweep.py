"""Studies: one program for all trials does what a trial alone would do."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax.report import Table
from zsml_jax.train import checkpoint, sweep
from zsml_jax.train.points import chain, grid, product

RATES = (0.02, 0.05, 0.1, 0.2, 0.3)


@dataclasses.dataclass
class Problem:
    """Regression by a tiny net, and how often its functions were traced."""

    x: jax.Array
    y: jax.Array
    traces: int = 0

    def start(self, key, hyperparameters, x, y, *, width=4):
        del hyperparameters, x, y
        self.traces += 1
        first, second = jax.random.split(key)
        params = {"in": jax.random.normal(first, (3, width)), "out": jax.random.normal(second, (width,)) / width}
        return {"params": params, "step": jnp.int32(0), "loss": jnp.float32(jnp.inf)}

    def step(self, key, hyperparameters, state, x, y, *, width=4):
        """A step of noisy gradient descent; the noise depends on the trial's key and the step."""
        del width
        self.traces += 1
        noise = 0.01 * jax.random.normal(jax.random.fold_in(key, state["step"]), y.shape)
        loss = lambda params: jnp.mean((jnp.tanh(x @ params["in"]) @ params["out"] - y - noise) ** 2)
        value, gradient = jax.value_and_grad(loss)(state["params"])
        params = jax.tree.map(lambda p, g: p - hyperparameters["rate"] * g, state["params"], gradient)
        return {"params": params, "step": state["step"] + 1, "loss": value}

    def train(self, key, hyperparameters, x, y, **static):
        state = self.start(key, hyperparameters, x, y, **static)
        return jax.lax.fori_loop(0, 10, lambda _, s: self.step(key, hyperparameters, s, x, y, **static), state)


@pytest.fixture(scope="module")
def arrays():
    x = jax.random.normal(jax.random.key(7), (32, 3))
    return x, jnp.sin(x[:, 0]) + x[:, 1]


@pytest.fixture
def problem(arrays):
    return Problem(*arrays)


def assert_same(study, other, atol=0.0):
    assert len(study.groups) == len(other.groups)
    for a, b in zip(study.groups, other.groups, strict=True):
        assert a.static == b.static
        for name in ("trials", "hyperparameters", "output"):
            jax.tree.map(
                lambda p, q: np.testing.assert_allclose(p, q, rtol=0, atol=atol), getattr(a, name), getattr(b, name)
            )


WIDTHS = product(grid(static=["width"], width=[4, 2]), grid(rate=RATES))


def test_vmap_map_and_serial_agree_with_a_plain_call(problem, arrays, key):
    options = {"key": key, "seeds": 2, "args": arrays}
    studies = [sweep.run(problem.train, WIDTHS, mode=mode, **options) for mode in ("vmap", "map", "serial")]
    studies.append(sweep.run(problem.train, WIDTHS, mode="map", batch_size=2, **options))
    for study in studies[1:]:
        assert_same(studies[0], study, atol=1e-6)
    assert studies[0].trials.tolist() == list(range(20))
    trial = studies[0].trial(13)  # 13 = 6 * 2 + 1: the second seed of the second rate at width 2
    assert (trial.point, trial.seed, trial.fields) == (6, 1, {"width": 2, "rate": pytest.approx(0.05)})
    alone = problem.train(jax.random.fold_in(key, 13), {"rate": 0.05}, *arrays, width=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), trial.output, alone)


def test_each_static_configuration_is_traced_once_whatever_the_values(problem, arrays, key):
    for mode in ("vmap", "map", "serial"):
        problem.traces = 0
        train = lambda *args, **static: problem.start(*args, **static)
        sweep.run(train, WIDTHS, key=key, mode=mode, args=arrays)
        assert problem.traces == 2
        other = product(grid(static=["width"], width=[4, 2]), grid(rate=[1.0, 2.0, 3.0, 4.0, 5.0]))
        sweep.run(train, other, key=jax.random.key(5), mode=mode, args=arrays)
        assert problem.traces == 2


def test_points_of_one_static_configuration_form_one_group_wherever_they_stand(problem, arrays, key):
    a, b = grid(static=["width"], width=[4], rate=[0.1]), grid(static=["width"], width=[2], rate=[0.1])
    study = sweep.run(problem.start, chain(a, b, a), key=key, args=arrays)
    assert [group.trials.tolist() for group in study.groups] == [[0, 2], [1]]
    assert [row["width"] for row in study.rows()] == [4, 2, 4]


def test_the_trial_axis_lies_on_all_devices_and_the_program_does_not_communicate(problem, arrays, key):
    assert jax.device_count() == 4
    points = grid(rate=np.linspace(0.01, 0.3, 8).tolist())
    study = sweep.run(problem.train, points, key=key, args=arrays)
    for leaf in jax.tree.leaves(study.groups[0].output):
        assert leaf.sharding.device_set == set(jax.devices())
        assert leaf.addressable_shards[0].data.shape[0] == 2
    mesh = jax.make_mesh((4,), ("trial",), axis_types=(jax.sharding.AxisType.Auto,))
    program = sweep._Program(problem.train, ())
    group = study.groups[0]
    lowered = sweep._stacked.lower(program, mesh, None, group.trials, group.hyperparameters, (), key, arrays, None)
    text = lowered.compile().as_text()
    assert not any(f"{word}(" in text for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))
    assert_same(study, sweep.run(problem.train, points, key=key, args=arrays, devices=jax.devices()[:1]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["vmap", "map"])
def test_trials_that_do_not_divide_by_the_devices_are_padded(problem, arrays, key, mode):
    whole = sweep.run(problem.train, grid(rate=RATES), key=key, mode="serial", args=arrays)
    for n in (5, 3, 1):
        part = sweep.run(problem.train, grid(rate=RATES[:n]), key=key, mode=mode, args=arrays)
        assert len(part) == n
        assert_same(part, whole.take(range(n)), atol=1e-6)


def test_a_diverging_trial_leaves_the_others_alone_and_is_marked(problem, arrays, key):
    clean = sweep.run(problem.train, grid(rate=RATES), key=key, args=arrays)
    for bad in (math.nan, math.inf, 1e30):
        study = sweep.run(problem.train, grid(rate=[*RATES[:2], bad, *RATES[3:]]), key=key, args=arrays)
        assert study.finite.tolist() == [True, True, False, True, True]
        assert_same(study.take([0, 1, 3, 4]), clean.take([0, 1, 3, 4]))
        assert study.best("loss").number != 2
        assert study.best("loss", "max").number != 2
        assert study.ranking("loss", "max")[-1] == 2
        assert study.rows()[2]["finite"] is False
    lost = sweep.run(problem.train, grid(rate=[math.nan]), key=key, args=arrays)
    with pytest.raises(ValueError, match="NaN in every trial"):
        lost.best("loss")


@pytest.mark.parametrize("mode", ["vmap", "map", "serial"])
def test_a_study_goes_on_from_its_checkpoint_bit_for_bit(problem, arrays, key, tmp_path, mode):
    points = product(grid(static=["width"], width=[4, 2]), grid(rate=RATES[:3]))
    options = {"mode": mode, "args": arrays}
    study = sweep.run(problem.start, points, key=key, **options)
    uninterrupted = sweep.advance(problem.step, study, repeat=8, **options)
    checkpoint.save(tmp_path / "study", sweep.advance(problem.step, study, repeat=3, **options))
    like = sweep.abstract(problem.start, points, key=key, args=arrays)
    problem.traces = 0
    resumed = sweep.advance(problem.step, checkpoint.restore(tmp_path / "study", like), repeat=5, **options)
    assert_same(resumed, uninterrupted)
    assert problem.traces == 0
    assert resumed.metric("step").tolist() == [8] * 6


def test_steps_of_a_study_are_the_steps_of_one_run(problem, arrays, key):
    study = sweep.run(problem.start, grid(rate=RATES), key=key, args=arrays)
    study = sweep.advance(problem.step, study, repeat=10, args=arrays)
    assert_same(study, sweep.run(problem.train, grid(rate=RATES), key=key, args=arrays), atol=1e-6)


def test_a_study_is_a_pytree_that_takes_optimizers_and_keys(key):
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=0.0)

    def train(key, hyperparameters):
        params = {"w": jax.random.normal(key, (2,))}
        state = optimizer.init(params)
        state = state._replace(hyperparams={**state.hyperparams, **hyperparameters})
        updates, state = optimizer.update(params, state, params)
        return {"params": optax.apply_updates(params, updates), "optimizer": state, "key": key}

    study = sweep.run(train, grid(learning_rate=[0.1, 0.2]), key=key)
    output = study.groups[0].output
    w = jnp.stack([jax.random.normal(jax.random.fold_in(key, i), (2,)) for i in range(2)])
    # Adam's first step has the length of the learning rate in each coordinate.
    expected = w - jnp.asarray([[0.1], [0.2]]) * jnp.sign(w)
    np.testing.assert_allclose(output["params"]["w"], expected, atol=1e-5)
    assert jax.tree.structure(jax.jit(lambda s: s)(study)) == jax.tree.structure(study)


def test_results_come_as_rows_and_as_a_table(problem, arrays, key):
    study = sweep.run(problem.train, grid(rate=RATES), key=key, seeds=2, args=arrays)
    losses = study.metric("loss")
    assert losses.shape == (10,)
    np.testing.assert_array_equal(study.metric(lambda output: output["loss"]), losses)
    best = study.best("loss")
    assert best.number == np.argmin(losses)
    assert best.fields == {"rate": pytest.approx(RATES[best.number // 2])}
    rows = study.rows("loss")
    assert [row["trial"] for row in rows] == list(range(10))
    assert rows[3] == {"trial": 3, "seed": 1, "rate": rows[2]["rate"], "loss": losses[3], "finite": True}
    table = study.table("loss", title="rates")
    assert isinstance(table, Table) and len(table.rows) == 10
    cells = table.to_markdown().splitlines()[7].replace(" ", "")
    assert cells == f"|3|1|{rows[3]['rate']:g}|{losses[3]:.4f}|yes|"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=k, args=a, seeds=0), "seeds must be at least 1, got 0"),
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=k, args=a, mode="pmap"), "mode must be one of vmap, map"),
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=k, args=a, batch_size=0), "batch_size must be at least 1"),
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=k, args=a, devices=[]), "devices must name at least one"),
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=jax.random.split(k), args=a), "key must be one typed key"),
        (lambda p, a, k: sweep.run(p.train, WIDTHS, key=jax.random.PRNGKey(0), args=a), "key must be one typed key"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_traced(problem, arrays, key, unchecked_types, call, message):
    with pytest.raises(ValueError, match=message):
        call(problem, arrays, key)
    assert problem.traces == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.metric("accuracy"), r"metric must be one of \['loss', 'params/in', 'params/out', 'step'\]"),
        (lambda s: s.metric("params/out"), r"one number a trial, got the shape \(4,\)"),
        (lambda s: s.ranking("loss", "least"), "goal must be 'min' or 'max', got 'least'"),
        (lambda s: s.trial(99), "number must be a trial of this study"),
        (lambda s: s.take([0, 99]), "trials must be numbers of this study"),
        (lambda s: s.take([]), "trials must be numbers of this study"),
        (lambda s: sweep.advance(lambda *a: None, s, repeat=-1), "repeat must not be negative, got -1"),
    ],
)
def test_wrong_questions_to_a_study_are_refused(problem, arrays, key, unchecked_types, call, message):
    study = sweep.run(problem.start, grid(rate=[0.1, 0.2]), key=key, args=arrays)
    with pytest.raises(ValueError, match=message):
        call(study)
