import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax.train import init_state, make_step, optimizer
from zsml_jax.train.optimizer import FROZEN, by_path, sgd


def linear_loss(params, batch, key):
    """The mean over the examples that count; parts of a batch differ in how many do."""
    errors = ((batch["x"] @ params["w"])[:, 0] - batch["y"]) ** 2
    weight = batch["counts"].sum()
    return (errors * batch["counts"]).sum() / weight, {"weight": weight, "largest": errors.max()}


@pytest.fixture
def linear():
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.standard_normal((8, 3)).astype(np.float32),
        "y": rng.standard_normal(8).astype(np.float32),
        "counts": np.float32([1, 0, 1, 1, 0, 1, 1, 0]),
    }
    return {"w": jnp.asarray(rng.standard_normal((3, 1)), jnp.float32)}, batch


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_gives_the_step_of_the_whole_batch_though_parts_count_differently(linear, accumulate, key):
    params, batch = linear
    made = by_path([(".*", sgd(0.1))])
    state = init_state(params, made, key=key)
    whole, expected = make_step(linear_loss, made)(state, batch)
    parts, metrics = make_step(linear_loss, made, accumulate=accumulate)(state, batch)
    chex.assert_trees_all_close(parts.params, whole.params, atol=1e-6)
    for name in ("loss", "gradient_norm", "weight"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)


def test_masters_stay_float32_while_the_loss_sees_bfloat16(key):
    seen = []

    def loss(params, batch, key):
        seen.append({name: leaf.dtype for name, leaf in params.items()})
        return (params["w"] * params["f"] * batch).mean(), {}

    params = {"w": jnp.ones(4, jnp.bfloat16), "f": jnp.ones(4)}
    made = by_path([("f", FROZEN), (".*", sgd(1e-4))])
    state = init_state(params, made, key=key, compute_dtype=jnp.bfloat16)
    assert (state.params["w"].dtype, state.params["f"].dtype) == (jnp.float32, jnp.bfloat16)
    step = make_step(loss, made, compute_dtype=jnp.bfloat16)
    for _ in range(2):
        state, metrics = step(state, jnp.ones(4, jnp.bfloat16))
    assert seen == [{"w": jnp.bfloat16, "f": jnp.bfloat16}] * 2
    # Two updates of 2.5e-5 each: next to one, bfloat16 has nothing between 0.996 and 1.
    np.testing.assert_allclose(state.params["w"], 1 - 5e-5, rtol=1e-6)
    assert state.params["w"].dtype == jnp.float32 and metrics["loss"].dtype == jnp.float32


def test_frozen_parameters_get_no_gradient_and_do_not_count_in_its_norm(key):
    def loss(params, batch, key):
        return (params["a"] * params["b"]).sum(), {}

    params = {"a": jnp.full(4, 2.0), "b": jnp.full(4, 3.0)}
    made = by_path([("b", FROZEN), ("a", sgd(1.0))])
    state, metrics = make_step(loss, made)(init_state(params, made, key=key, average_decay=0.9), jnp.zeros(1))
    np.testing.assert_array_equal(state.params["a"], -1.0)
    np.testing.assert_array_equal(state.params["b"], 3.0)
    np.testing.assert_allclose(metrics["gradient_norm"], 6.0)
    np.testing.assert_array_equal(state.average_params["b"], 3.0)


def test_the_average_follows_its_recurrence(linear, key):
    params, batch = linear
    made = optax.sgd(0.1)
    step = make_step(linear_loss, made)
    state = init_state(params, made, key=key, average_decay=0.3)
    expected = np.asarray(params["w"])
    for number in range(5):
        state, _ = step(state, batch)
        decay = min(0.3, (1 + number) / (10 + number))
        expected = decay * expected + (1 - decay) * np.asarray(state.params["w"])
    np.testing.assert_allclose(state.average_params["w"], expected, rtol=1e-6)


def test_a_step_that_is_not_finite_changes_nothing_and_neither_do_later_ones(linear, key):
    params, batch = linear
    made = by_path([(".*", optimizer.adamw(0.1))])
    step = make_step(linear_loss, made)
    good, _ = step(init_state(params, made, key=key), batch)
    bad, metrics = step(good, batch | {"y": np.full(8, np.inf, np.float32)})
    later, after = step(bad, batch)
    assert not metrics["finite"] and not after["finite"] and int(later.step) == 1
    for state in (bad, later):
        chex.assert_trees_all_equal((state.params, state.opt_state), (good.params, good.opt_state))


def test_dropout_depends_on_the_key_the_step_and_the_part(key):
    def loss(params, batch, key):
        return params["w"] * 0.0, {"drawn": jax.random.uniform(key)}

    made = optax.sgd(0.1)
    state = init_state({"w": jnp.ones(())}, made, key=key)
    first, one = make_step(loss, made)(state, jnp.zeros(2))
    _, two = make_step(loss, made)(first, jnp.zeros(2))
    step_key = jax.random.fold_in(key, 0)
    np.testing.assert_allclose(one["drawn"], jax.random.uniform(step_key))
    assert one["drawn"] != two["drawn"]
    _, parts = make_step(loss, made, accumulate=2)(state, jnp.zeros(2))
    drawn = [jax.random.uniform(jax.random.fold_in(step_key, part)) for part in range(2)]
    np.testing.assert_allclose(parts["drawn"], np.mean(drawn), rtol=1e-6)
