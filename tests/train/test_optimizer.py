"""The oracle is optax with the same numbers, applied to each group of parameters on its own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax.train import optimizer, schedules, trainable
from zsml_jax.train.optimizer import FROZEN, adamw, by_path, sgd


@pytest.fixture
def params():
    normal = np.random.default_rng(0).standard_normal
    return {
        "embed": jnp.asarray(normal((5, 3)), jnp.float32),
        "layers": {
            "dense": {
                "kernel": jnp.asarray(normal((2, 3, 3)), jnp.float32),
                "bias": jnp.asarray(normal((2, 3)), jnp.float32),
            },
            "norm": {"scale": jnp.asarray(normal((2, 3)), jnp.float32)},
        },
        "head": {"kernel": jnp.asarray(normal((3, 4)), jnp.float32)},
    }


def run(transformation, params, steps=3):
    state = transformation.init(params)
    for step in range(steps):
        grads = jax.tree.map(lambda p: jnp.sin(p + step), params)  # noqa: B023
        updates, state = transformation.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def test_each_parameter_moves_by_the_first_rule_that_matches_its_whole_path(params):
    rules = [
        ("embed", FROZEN),
        ("layers/.*", adamw(1e-2, weight_decay=0.1)),
        (".*kernel", sgd(0.5, momentum=0.9)),
    ]
    moved, _ = run(by_path(rules), params)
    chex.assert_trees_all_equal(moved["embed"], params["embed"])
    mask = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}
    layers, _ = run(optax.adamw(1e-2, weight_decay=0.1, mask=mask), params["layers"])
    head, _ = run(optax.sgd(0.5, momentum=0.9), params["head"])
    chex.assert_trees_all_close(moved["layers"], layers, atol=1e-6)
    chex.assert_trees_all_close(moved["head"], head, atol=1e-6)


def test_every_parameter_without_a_rule_is_named_at_once(params):
    with pytest.raises(ValueError, match="rules must match every parameter; 3 of 5") as error:
        by_path([("embed", FROZEN), ("layers/.*kernel", sgd(0.1))]).init(params)
    for path in ("layers/dense/bias", "layers/norm/scale", "head/kernel"):
        assert f"\n  {path}" in str(error.value)
    with pytest.raises(ValueError, match="3 of 5"):
        by_path([("embed", FROZEN), ("layers/.*kernel", sgd(0.1))]).frozen(params)


def test_a_rule_that_no_parameter_matches_is_an_error_though_a_later_rule_covers_all(params):
    with pytest.raises(ValueError, match=r"\['embedding'\] match none of"):
        by_path([("embedding", FROZEN), (".*", sgd(0.1))]).init(params)


def test_a_rule_of_another_kind_and_a_broken_expression_are_refused(params, unchecked_types):
    with pytest.raises(ValueError, match="must give an optax transformation or FROZEN; '.*' gives 'thaw'"):
        by_path([(".*", "thaw")])
    with pytest.raises(ValueError, match="regular expressions"):
        by_path([("(", sgd(0.1))]).init(params)
    with pytest.raises(ValueError, match="clip_norm must be finite and positive, got 0"):
        by_path([(".*", sgd(0.1))], clip_norm=0.0)
    with pytest.raises(ValueError, match="weight_decay must be finite and not negative"):
        adamw(0.1, weight_decay=-1.0)


def test_clipping_bounds_the_norm_of_what_is_trained_and_counts_nothing_frozen(params):
    gradients = jax.tree.map(jnp.ones_like, params) | {"embed": jnp.full((5, 3), 1e6)}
    clipped = by_path([("embed", FROZEN), (".*", sgd(1.0))], clip_norm=0.5)
    updates, _ = clipped.update(gradients, clipped.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-6)
    count = 2 * 3 * 3 + 2 * 3 + 2 * 3 + 3 * 4
    np.testing.assert_allclose(updates["head"]["kernel"], -0.5 / np.sqrt(count), rtol=1e-6)


def test_trees_without_their_frozen_leaves_give_the_same_updates_and_no_state_for_them(params):
    made = by_path([("embed", FROZEN), (".*", adamw(1e-2, weight_decay=0.1))], clip_norm=1.0)
    frozen = made.frozen(params)
    assert frozen == jax.tree.map(lambda _: False, params) | {"embed": True}
    whole, _ = run(made, params)
    trained, state = run(made, trainable.select(params, frozen))
    chex.assert_trees_all_equal(trainable.merge(trained, params), whole)
    assert not any(leaf.shape == (5, 3) for leaf in jax.tree.leaves(state))


def test_a_scheduled_rate_is_what_the_schedule_says_and_is_reported(params):
    schedule = schedules.warmup_cosine(0.1, steps=10, warmup_steps=2, end=0.01)
    moved, state = run(by_path([(".*", sgd(schedule))]), params, steps=4)
    expected, _ = run(optax.sgd(schedule), params, steps=4)
    chex.assert_trees_all_close(moved, expected, atol=1e-6)
    assert optimizer.learning_rates(state) == {"learning_rate": schedule(3)}


def test_numbers_change_without_another_compilation_by_name_and_by_rule(params):
    made = by_path([("head/.*", sgd(0.1)), (".*", adamw(schedules.warmup_cosine(0.1, steps=9)))], clip_norm=1.0)
    state = made.init(params)
    names = {"max_norm", "momentum", "b1", "b2", "eps"} | {
        f"{name}/{rule}" for name in ("weight_decay", "peak", "warmup_steps", "steps", "end") for rule in (0, 1)
    }
    assert set(optimizer.hyperparameters(state)) == names

    @jax.jit
    @chex.assert_max_traces(1)
    def step(params, state):
        return made.update(jax.tree.map(jnp.ones_like, params), state, params)

    step(params, state)
    changed = optimizer.set_hyperparameters(state, max_norm=2.0, **{"peak/0": 0.0})
    updates, after = step(params, changed)
    assert not np.any(updates["head"]["kernel"]) and np.all(updates["embed"] != 0)
    assert set(optimizer.learning_rates(after)) == {"learning_rate/0", "learning_rate/1"}
    both = optimizer.hyperparameters(optimizer.set_hyperparameters(state, peak=0.7))
    np.testing.assert_allclose([both["peak/0"], both["peak/1"]], 0.7, rtol=1e-6)
    with pytest.raises(ValueError, match="no 'momentun'. Did you mean 'momentum'"):
        optimizer.set_hyperparameters(state, momentun=0.5)


def test_a_study_maps_over_learning_rates(params):
    small = params["head"]

    def final(rate):
        return run(by_path([(".*", adamw(rate))]), small)[0]["kernel"]

    rates = jnp.asarray([1e-3, 1e-2])
    together = jax.jit(jax.vmap(final))(rates)
    for rate, moved in zip(rates, together, strict=True):
        np.testing.assert_allclose(moved, final(rate), atol=1e-6)
