"""Adapters in the training loop: what is trained, and runs that were killed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.peft.conftest import TOKENS
from tests.transform.stacks import Scanned, apply_of, random_params
from zsml_jax import peft, train
from zsml_jax.train import Checkpointer, optimizer, parameter_paths, sharding

X = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
RUN = peft.apply_fn(apply_of(Scanned()))


class Batches:
    """The same batch for ever, with a position."""

    def __init__(self):
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return X

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


def loss_fn(params, batch, key):
    output = RUN(params["adapter"], params["base"], batch, key=key)
    if params["adapter"].head is not None:
        output = output @ params["adapter"].head["kernel"]
    return jnp.mean((output - 1.0) ** 2), {}


def fit(tree, steps, checkpoints=None, rules=None, sharding=None, **options):
    options |= {} if sharding is None else {"rules": sharding}
    rules = rules or peft.optimizer_rules(tree["adapter"], optimizer.adamw(1e-2))
    return train.fit(
        loss_fn,
        tree,
        Batches(),
        optimizer=optimizer.by_path(rules),
        steps=steps,
        key=jax.random.key(1),
        log_every=1,
        show_progress=False,
        checkpoints=checkpoints,
        **options,
    )


def tree_of(config, head=None):
    params = random_params(Scanned(), X)
    adapter = peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0), head=head)
    return {"adapter": adapter, "base": params}


HEAD = {"kernel": np.ones((2, 3), np.float32)}
slow = lambda *args: pytest.param(*args, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "head", "moved"),
    [
        (peft.MoRe(blocks=2, block_rank=2, dropout=0.1), None, ("adapter/arrays",)),
        (peft.LinearProbe(), HEAD, ("adapter/head",)),
        slow(peft.VeRA(rank=3), None, ("adapter/arrays",)),
        slow(peft.LoRA(rank=2, train="head/*"), HEAD, ("adapter/arrays", "adapter/weights", "adapter/head")),
        slow(peft.FullFineTuning(), None, ("adapter/weights",)),
    ],
)
def test_one_loop_trains_every_kind_of_adapter_and_nothing_else(config, head, moved):
    """Each parameter has a rule, and those that moved are those that the method trains."""
    tree = tree_of(config, head)
    fitted = fit(tree, 3)
    assert fitted.history[-1]["loss"] < fitted.history[0]["loss"]
    paths = parameter_paths.paths(tree)
    changed = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (tree, fitted.params)), strict=True)]
    assert {path for path, is_changed in zip(paths, changed, strict=True) if is_changed} == {
        path for path in paths if path.startswith(moved)
    }
    assert isinstance(fitted.params["adapter"], peft.Adapter)


def test_groups_have_rates_of_their_own():
    tree = tree_of(peft.LoRA(rank=2, train="head/*"), HEAD)
    still, moving = optimizer.sgd(0.0), optimizer.sgd(0.1)
    rules = peft.optimizer_rules(tree["adapter"], still, head=moving)
    after = fit(tree, 1, rules=rules).params["adapter"]
    jax.tree.map(np.testing.assert_array_equal, after.arrays, tree["adapter"].arrays)
    assert np.any(after.head["kernel"] != HEAD["kernel"])


def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    tree = tree_of(peft.MoRe(blocks=2, block_rank=2, dropout=0.3))
    whole = fit(tree, 4)
    for steps in (2, 4):
        with Checkpointer(tmp_path) as checkpoints:
            resumed = fit(tree, steps, checkpoints)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert [h["loss"] for h in resumed.history] == [h["loss"] for h in whole.history[2:]]


@pytest.mark.slow
def test_a_run_over_several_devices_has_the_losses_of_one():
    """The base is divided over two devices, as are the weights that are trained in full."""
    tree = tree_of(peft.LoRA(rank=2, train="up/kernel"))
    rules = [(".*/up/kernel", PartitionSpec(None, None, "model")), (".*", PartitionSpec())]
    mesh = sharding.make_mesh("data:2,model:2")
    divided = fit(tree, 3, mesh=mesh, sharding=peft.sharding_rules(rules))
    alone = fit(tree, 3)
    np.testing.assert_allclose([h["loss"] for h in divided.history], [h["loss"] for h in alone.history], rtol=1e-5)
    placed = divided.params["adapter"].weights["layers/mlp/up/kernel"].sharding.spec
    assert placed == divided.params["base"]["layers"]["mlp"]["up"]["kernel"].sharding.spec
    assert placed == PartitionSpec(None, None, "model")


@pytest.mark.slow
def test_training_in_bfloat16_keeps_float32_masters_of_the_adapter_only():
    tree = tree_of(peft.MoRe(blocks=2, block_rank=2))
    params = fit(tree, 2, compute_dtype=jnp.bfloat16).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params["adapter"].arrays)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(params["base"])} == {jnp.dtype(jnp.bfloat16)}


def test_an_adapter_without_anything_to_train_is_refused():
    with pytest.raises(ValueError, match="adapter must have something to train"):
        peft.optimizer_rules(tree_of(peft.LinearProbe())["adapter"], optimizer.sgd(0.1))


@pytest.mark.slow
def test_a_language_model_learns_a_text_by_its_adapter_alone(llama):
    run = peft.apply_fn(llama.apply)

    def loss_fn(params, tokens, key):
        scores = jax.nn.log_softmax(run(params["adapter"], params["base"], tokens, key=key))[:, :-1]
        return -jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1).mean(), {}

    adapter = peft.adapt(llama, peft.MoRe(blocks=4, block_rank=4), key=jax.random.key(0))
    tree = {"adapter": adapter, "base": llama.params}
    rules = peft.optimizer_rules(adapter, optimizer.adamw(2e-2))
    fitted = train.fit(loss_fn, tree, iter([TOKENS] * 60), optimizer=optimizer.by_path(rules), steps=60,
                       key=jax.random.key(0), log_every=1, show_progress=False)  # fmt: skip
    # The head is frozen, and with it how sure of a token the model can be.
    assert fitted.history[-1]["loss"] < 0.3 * fitted.history[0]["loss"]
    merged = llama.replace(params=peft.merge(llama, fitted.params["adapter"]))
    assert np.mean(np.argmax(merged.apply(merged.params, TOKENS)[:, :-1], -1) == TOKENS[:, 1:]) > 0.9
