import io
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console

from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, EarlyStopping, Evaluator, NotFiniteError, fit, optimizer
from zsml_jax.train.step_progress import StepProgress


def losses(result):
    return [record["loss"] for record in result.history if "loss" in record]


def train(problem, steps=6, **options):
    options = {
        "optimizer": problem.optimizer(),
        "key": jax.random.key(5),
        "log_every": 1,
        "show_progress": False,
    } | options
    return fit(
        options.pop("loss", problem.loss),
        problem.params,
        options.pop("data", problem.batches()),
        steps=steps,
        **options,
    )


def test_the_losses_are_those_of_a_loop_over_optax_written_out(problem):
    result = train(problem)
    params, adam, expected = problem.params, optax.adamw(0.05, weight_decay=0.0), []
    state = adam.init(params)
    for step, batch in zip(range(6), problem.batches(), strict=False):
        key = jax.random.fold_in(jax.random.key(5), step)
        (value, _), gradients = jax.value_and_grad(problem.loss, has_aux=True)(params, batch, key)
        updates, state = adam.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        expected.append(float(value))
    # Adam's quotients magnify the last bit in which a compiled step differs from an eager one.
    np.testing.assert_allclose(losses(result), expected, rtol=1e-4)
    chex.assert_trees_all_close(result.params, params, atol=1e-4)
    assert (result.step, result.stopped, int(result.state.step)) == (6, "done", 6)
    assert set(result.history[0]) == {"step", "loss", "error", "gradient_norm", "learning_rate", "examples_per_second"}


def test_the_callers_parameters_are_left_alone(problem):
    before = jax.tree.map(np.array, problem.params)
    train(problem, steps=2)
    chex.assert_trees_all_equal(jax.tree.map(np.asarray, problem.params), before)


def test_the_step_is_traced_once_and_does_not_retrace(problem):
    counted = chex.assert_max_traces(problem.loss, n=1)
    train(problem, loss=counted, steps=4)
    chex.clear_trace_counter()


def test_a_resumed_run_has_the_losses_and_parameters_of_an_uninterrupted_one(problem, tmp_path):
    stopping = EarlyStopping("eval/norm", patience=50)
    norm = Evaluator("eval", lambda params: {"norm": optax.tree.norm(params)}, every=2)
    options = {"average_decay": 0.9, "evaluators": [norm], "early_stopping": stopping}
    whole = train(problem, steps=7, **options)
    first, second = [], []
    for steps, into in ((4, first), (7, second)):
        with Checkpointer(tmp_path, every=3) as checkpoints:
            result = train(problem, steps=steps, checkpoints=checkpoints, **options)
            into += losses(result)
            assert checkpoints.latest_step == steps
    assert first + second == losses(whole)
    chex.assert_trees_all_equal(result.state.params, whole.state.params)
    chex.assert_trees_all_equal(result.average_params, whole.average_params)
    assert result.best == whole.best


def test_a_run_that_is_done_is_not_trained_again(problem, tmp_path):
    for _ in range(2):
        with Checkpointer(tmp_path) as checkpoints:
            result = train(problem, steps=2, checkpoints=checkpoints)
    assert result.history == [] and result.step == 2


def test_a_loss_that_is_not_finite_ends_the_run_with_its_batch_saved_and_the_state_before_it(problem, tmp_path):
    def loss(params, batch, key):
        value, metrics = problem.loss(params, batch, key)
        return value + jnp.where(batch["x"].max() > 90, jnp.nan, 0.0), metrics

    data = [batch for batch, _ in zip(problem.batches(), range(6), strict=False)]
    data[3]["x"][2, 1] = 99.0
    folder = RunFolder.create(tmp_path, "e", "p", {})
    with pytest.raises(NotFiniteError, match="step 4 has the loss nan") as error:
        train(problem, loss=loss, data=data, folder=folder)
    with np.load(error.value.path) as saved:
        np.testing.assert_array_equal(saved["x"], data[3]["x"])
        np.testing.assert_array_equal(saved["y"], data[3]["y"])
    good = train(problem, steps=3)
    chex.assert_trees_all_close(error.value.state.params, good.params, atol=1e-6)
    assert [record["step"] for record in folder.metrics()] == [1, 2, 3]


def test_no_checkpoint_holds_a_step_that_is_not_finite(problem, tmp_path):
    def loss(params, batch, key):
        return problem.loss(params, batch, key)[0] * jnp.where(params["up"]["bias"].any(), jnp.inf, 1.0), {}

    with Checkpointer(tmp_path) as checkpoints:
        with pytest.raises(NotFiniteError, match="step 2 .* give a folder"):
            train(problem, loss=loss, checkpoints=checkpoints)
        assert checkpoints.steps == [1]


def test_early_stopping_stops_at_the_patience_and_a_resumed_run_stays_stopped(problem, tmp_path):
    values = iter([3.0, 2.0, 2.5, 2.6, 1.0])
    watch = Evaluator("watch", lambda params: {"value": next(values)}, every=2)
    options = {"evaluators": [watch], "early_stopping": EarlyStopping("watch/value", patience=2), "steps": 20}
    for _ in range(2):
        with Checkpointer(tmp_path) as checkpoints:
            result = train(problem, checkpoints=checkpoints, **options)
        assert (result.stopped, result.step) == ("early", 8)
        assert result.best[:2] == (2.0, 4)


def test_evaluators_see_the_averaged_parameters_and_run_after_the_last_step(problem):
    seen = []
    average = Evaluator("a", lambda params: seen.append(params["up"]["bias"]) or {}, every=2)
    raw = Evaluator("b", lambda params: seen.append(params["up"]["bias"]) or {}, every=100, averaged=False)
    result = train(problem, steps=3, average_decay=0.5, evaluators=[average, raw])
    assert len(seen) == 3
    np.testing.assert_array_equal(seen[1], result.average_params["up"]["bias"])
    np.testing.assert_array_equal(seen[2], result.params["up"]["bias"])
    assert np.abs(seen[1] - seen[2]).max() > 0


def test_data_that_ends_ends_the_run_and_is_saved(problem, tmp_path):
    with Checkpointer(tmp_path, every=100) as checkpoints:
        result = train(problem, steps=50, data=problem.batches(epochs=1), checkpoints=checkpoints)
        assert (result.stopped, result.step, checkpoints.latest_step) == ("data", 4, 4)


def test_utilisation_is_the_models_arithmetic_over_the_peak(problem):
    # 2 x batch 8 x (4 x 8 + 8 x 2) weights, three passes.
    result = train(problem, steps=3, peak_flops=1e6, units=lambda batch: batch["x"].size, unit="numbers")
    for record in result.history:
        steps_per_second = record["numbers_per_second"] / 32
        assert record["model_flops_utilisation"] == pytest.approx(2304 * steps_per_second / 1e6)


def test_metrics_go_to_the_folder_and_a_trace_of_the_window_under_it(problem, tmp_path):
    folder = RunFolder.create(tmp_path, "e", "p", {})
    result = train(problem, steps=4, folder=folder, log_every=2, profile=(2, 3))
    assert [record["step"] for record in folder.metrics()] == [2, 4]
    assert [record["loss"] for record in folder.metrics()] == losses(result)
    assert list((folder.path / "profile").rglob("*.xplane.pb"))


def test_progress_off_a_terminal_is_a_line_a_report_with_the_time_left():
    console = rich.console.Console(file=io.StringIO())
    with StepProgress(0, 100, console=console) as progress:
        progress.advance(1)
        progress.report(10, {"loss": 1.25, "tokens_per_second": 12345.0})
    line = console.file.getvalue()
    assert line.startswith("step 10/100, loss 1.25, tokens_per_second 1.234e+04, 0:00:0") and line.endswith(" left\n")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"accumulate": 3}, "accumulate must divide the batch, got 3 and 8 examples"),
        ({"average_decay": 0.0}, "average_decay must be finite and positive"),
        ({"key": np.zeros(2, np.uint32)}, "key must be a typed key"),
        ({"profile": (3, 2)}, "profile must be a first and a last step"),
        ({"profile": (1, 2)}, "profile must have a folder"),
        ({"early_stopping": EarlyStopping("x/y", 1)}, "early_stopping must name a metric of the evaluators"),
        ({"optimizer": optimizer.by_path([("up/.*", optimizer.sgd(0.1))])}, "down/kernel"),
        ({"loss": lambda p, b, k: (b["x"], {})}, "loss_fn must return a scalar loss"),
    ],
)
def test_arguments_out_of_range_are_refused(problem, changes, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        train(problem, **changes)


def test_checkpoints_need_data_that_can_be_resumed(problem, tmp_path):
    with Checkpointer(tmp_path) as checkpoints, pytest.raises(ValueError, match="data must have get_state"):
        train(problem, data=[], checkpoints=checkpoints)


def test_logged_lines_are_json_numbers(problem, tmp_path):
    folder = RunFolder.create(tmp_path, "e", "p", {})
    train(problem, steps=1, folder=folder)
    (line,) = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert all(isinstance(value, int | float) for value in json.loads(line).values())
