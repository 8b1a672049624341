"""Successive halving against a plain Python version of it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.train import halving, sweep
from zsml_jax.train.points import Points, grid, product

RATES = [0.01, 0.03, 0.1, 0.3, 0.5, math.nan, 0.7, 0.9, 0.95]
POINTS = product(grid(static=["power"], power=[2, 4]), grid(rate=RATES))


class Descent:
    """Gradient descent on ``|w| ** power`` from a random start."""

    traces = 0

    def start(self, key, hyperparameters, *, power):
        del hyperparameters, power
        return {"w": 1 + jax.random.uniform(key), "loss": jnp.float32(0)}

    def step(self, key, hyperparameters, state, *, power):
        del key
        self.traces += 1
        w = state["w"] - hyperparameters["rate"] * jax.grad(lambda w: jnp.abs(w) ** power)(state["w"])
        w = jnp.clip(w, -4, 4)
        return {"w": w, "loss": jnp.abs(w) ** power}


def plain(key, rungs, reduction_factor, sign=1):
    """Lists of trials, one after the other."""
    descent = Descent()
    setting = {t: (POINTS[t // 2].traced, POINTS[t // 2].static) for t in range(2 * len(POINTS))}
    keys = {t: jax.random.fold_in(key, t) for t in setting}
    step = jax.jit(descent.step, static_argnames="power")
    states = {t: descent.start(keys[t], traced, **static) for t, (traced, static) in setting.items()}
    ran = []
    for i, length in enumerate(rungs):
        ran.append(sorted(states))
        for t in states:
            for _ in range(length):
                states[t] = step(keys[t], setting[t][0], states[t], **setting[t][1])
        if i < len(rungs) - 1:
            loss = {t: float(state["loss"]) for t, state in states.items()}
            order = sorted(states, key=lambda t: (math.isnan(loss[t]), sign * loss[t], t))
            states = {t: states[t] for t in order[: max(1, len(order) // reduction_factor)]}
    return ran, states


@pytest.mark.parametrize("goal", ["min", "max"])
def test_halving_keeps_the_trials_that_a_plain_implementation_keeps(key, goal):
    descent = Descent()
    rungs, factor = (1, 2, 4, 4), 3
    result = halving.run(descent.start, descent.step, POINTS, key=key, seeds=2, rungs=rungs, metric="loss", goal=goal)
    ran, states = plain(key, rungs, factor, sign=1 if goal == "min" else -1)
    assert [rung.trials.tolist() for rung in result.rungs] == ran
    assert [len(rung.trials) for rung in result.rungs] == [36, 12, 4, 1]
    assert [rung.steps for rung in result.rungs] == [1, 3, 7, 11]
    assert result.rungs[0].kept.tolist() == ran[1]
    assert result.study.trials.tolist() == sorted(states)
    np.testing.assert_allclose(result.study.metric("loss"), [states[t]["loss"] for t in sorted(states)], rtol=1e-5)
    # One program for each group and rung: the stacked shapes shrink.
    assert descent.traces <= 2 * len(rungs)


def test_without_a_reduction_left_the_last_trial_is_that_of_the_whole_study(key):
    descent = Descent()
    options = {"key": key, "devices": jax.devices()[:1]}
    points = Points(POINTS.rows[:9])
    result = halving.run(descent.start, descent.step, points, rungs=(3, 2), metric="loss", **options)
    whole = sweep.advance(descent.step, sweep.run(descent.start, points, **options), repeat=5)
    kept = result.study.trials
    np.testing.assert_array_equal(result.study.metric("w"), whole.take(kept).metric("w"))
    assert len(kept) == 3 and 5 not in kept


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rungs": ()}, "rungs must be positive"),
        ({"rungs": (3, 0)}, r"rungs must be positive numbers of steps, got \(3, 0\)"),
        ({"rungs": (3,), "reduction_factor": 1}, "reduction_factor must be at least 2, got 1"),
    ],
)
def test_wrong_rungs_are_refused(key, options, message):
    descent = Descent()
    with pytest.raises(ValueError, match=message):
        halving.run(descent.start, descent.step, POINTS, key=key, metric="loss", **options)
