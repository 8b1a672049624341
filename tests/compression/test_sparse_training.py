"""Removed weights never come back, and the schedule is that of its paper, through ``train.fit`` and its checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax import compression, train
from zsml_jax.compression import Gradual, keep_masks, prune_gradually
from zsml_jax.train import optimizer as optimizers
from zsml_jax.train import schedules
from zsml_jax.train.checkpoint import Checkpointer

PATHS = ("up/kernel", "down/kernel")


def params_of(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return {"up": {"kernel": draw(6, 10), "bias": draw(10)}, "down": {"kernel": draw(10, 4)}}


def loss_fn(params, batch, key):
    hidden = jnp.tanh(batch["x"] @ params["up"]["kernel"] + params["up"]["bias"])
    return jnp.square(hidden @ params["down"]["kernel"] - batch["y"]).mean(), {}


class Batches:
    """Random batches that know where they are."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        rng = np.random.default_rng(self.position)
        return {"x": rng.normal(size=(8, 6)).astype(np.float32), "y": rng.normal(size=(8, 4)).astype(np.float32)}

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def fit(params, optimizer, steps, key, **options):
    return train.fit(
        loss_fn, params, Batches(), optimizer=optimizer, steps=steps, key=key, show_progress=False, **options
    )


def zeros(params):
    return {path: np.asarray(params[path.split("/")[0]]["kernel"]) == 0 for path in PATHS}


ADAM = optimizers.by_path([(".*", optimizers.adamw(schedules.constant(0.05), weight_decay=0.1))])
MOMENTUM = optax.sgd(0.1, momentum=0.9, nesterov=True)


@pytest.mark.parametrize("optimizer", [ADAM, MOMENTUM], ids=["adamw", "momentum"])
def test_masks_never_resurrect_and_the_rest_is_trained(optimizer, key):
    pruned = compression.prune(params_of(), "magnitude", 0.6, groups=PATHS)
    done = fit(pruned.params, keep_masks(optimizer, pruned.masks), 5, key)
    for path, is_zero in zeros(done.params).items():
        np.testing.assert_array_equal(is_zero, ~np.asarray(pruned.masks[path]))
    assert not np.allclose(done.params["up"]["bias"], params_of()["up"]["bias"])


def test_masks_of_ones_change_nothing(key):
    masks = {path: np.ones(np.shape(params_of()[path.split("/")[0]]["kernel"]), bool) for path in PATHS}
    ours, plain = (fit(params_of(), optimizer, 3, key).params for optimizer in (keep_masks(ADAM, masks), ADAM))
    jax.tree.map(np.testing.assert_array_equal, ours, plain)


def test_frozen_parameters_stay_frozen_and_rates_are_reported(key):
    frozen = optimizers.by_path([("up/.*", optimizers.FROZEN), (".*", optimizers.adamw(schedules.constant(0.05)))])
    pruned = compression.prune(params_of(), "magnitude", 0.5, groups=PATHS)
    done = fit(pruned.params, keep_masks(frozen, pruned.masks), 2, key)
    np.testing.assert_array_equal(done.params["up"]["kernel"], pruned.params["up"]["kernel"])
    assert done.history[-1]["learning_rate"] == pytest.approx(0.05)


def test_the_gradual_schedule_is_that_of_its_paper_and_only_ever_removes(key):
    schedule = Gradual(final=0.75, steps=4, every=2, begin=3, initial=0.25)
    expected = [0.75 - 0.5 * (1 - k / 4) ** 3 for k in range(5)]
    np.testing.assert_allclose(schedule.sparsities(), expected)
    before = {path: np.zeros_like(mask) for path, mask in zeros(params_of()).items()}
    optimizer = prune_gradually(ADAM, schedule, PATHS)
    state, params = optimizer.init(params_of()), params_of()

    @jax.jit
    def step(params, state, batch):
        gradients = jax.grad(lambda p: loss_fn(p, batch, None)[0])(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for number, batch in zip(range(1, 14), Batches(), strict=False):
        params, state = step(params, state, batch)
        rises = min(max((number - 3) // 2, -1), 4)
        now = zeros(params)
        assert sum(mask.sum() for mask in now.values()) == (0 if rises < 0 else round(expected[rises] * 100))
        for path, mask in now.items():
            assert np.all(mask | ~before[path])
            np.testing.assert_array_equal(mask, ~np.asarray(state.masks[path]))
        before = now


def test_gradual_pruning_removes_the_smallest_weights_of_the_moment():
    optimizer = prune_gradually(optax.sgd(1.0), Gradual(final=0.5, steps=1, every=1), ["up/kernel"])
    params = {"up": {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}}
    state = optimizer.init(params)
    updates, state = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)  # the initial sparsity: 0
    gradient = {"up": {"kernel": jnp.array([[0.0, 0.0, 2.5, 0.0]])}}  # takes the third to 0.5
    updates, state = optimizer.update(gradient, state, optax.apply_updates(params, updates))
    np.testing.assert_allclose(optax.apply_updates(params, updates)["up"]["kernel"], [[0.0, 2.0, 0.0, 4.0]])


def test_a_resumed_run_has_the_masks_of_one_that_was_not_stopped(key, tmp_path):
    optimizer = prune_gradually(ADAM, Gradual(final=0.6, steps=2, every=2), PATHS)
    whole = fit(params_of(), optimizer, 6, key)
    with Checkpointer(tmp_path / "run", every=3) as checkpoints:
        fit(params_of(), optimizer, 3, key, checkpoints=checkpoints)
    with Checkpointer(tmp_path / "run", every=3) as checkpoints:
        resumed = fit(params_of(), optimizer, 6, key, checkpoints=checkpoints)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.state.opt_state.masks, whole.state.opt_state.masks)


def test_what_does_not_fit_is_refused(key):
    with pytest.raises(ValueError, match=r"masks must be of parameters; there are none at \['gate/kernel'\]"):
        keep_masks(ADAM, {"gate/kernel": np.ones(2, bool)}).init(params_of())
    with pytest.raises(ValueError, match=r"masks must fit their kernels; at up/kernel \(2,\) is not \(6, 10\)"):
        keep_masks(ADAM, {"up/kernel": np.ones(2, bool)}).init(params_of())
    with pytest.raises(ValueError, match=r"paths must be those of trained parameters; \['gate/kernel'\] are not"):
        prune_gradually(ADAM, Gradual(0.5, 2, 1), ["gate/kernel"]).init(params_of())
    for wrong, message in [
        (Gradual(1.0, 2, 1), "sparsity must be at least 0 and less than 1, got 1.0"),
        (Gradual(0.5, 0, 1), "steps must be at least 1, got 0"),
        (Gradual(0.5, 2, 0), "every must be at least 1, got 0"),
        (Gradual(0.5, 2, 1, initial=0.6), r"initial must lie in 0 ... 0.5, the final sparsity, got 0.6"),
    ]:
        with pytest.raises(ValueError, match=message):
            prune_gradually(ADAM, wrong, PATHS)
