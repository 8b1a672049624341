"""The published recipes: their numbers, and that they fit the published models, of which only shapes are made."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from tests.train import zoo
from zsml_jax import peft
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.peft import recipes
from zsml_jax.train import optimizer

#: The stored best settings of the released code, N = r = 4: epochs, evaluation, rate, batch, schedule.
GLUE = {
    "cola": (20, 150, 2.1e-4, 16, "cosine", "matthews"),
    "mnli": (10, 500, 2.0e-4, 32, "linear", "accuracy"),
    "mrpc": (20, 150, 3.2e-4, 32, "cosine", "accuracy"),
    "qnli": (10, 400, 3.0e-4, 32, "cosine", "accuracy"),
    "qqp": (20, 1250, 6.2e-4, 32, "cosine", "accuracy"),
    "rte": (20, 150, 5.4e-4, 16, "cosine", "accuracy"),
    "sst2": (10, 800, 5.4e-4, 16, "cosine", "accuracy"),
    "stsb": (20, 150, 4.0e-4, 32, "cosine", "pearson"),
}
#: Table of the numbers of parameters: q, k, v of RoBERTa-large, of LLaMA-7B, and all 7 linears of LLaMA-7B.
COUNTS = {
    ("roberta-large", ("query", "key", "value")): {
        1: 147_456, 2: 294_912, 4: 589_824, 8: 1_179_648, 16: 2_359_296,
    },
    ("llama-2-7b", ("query", "key", "value")): {4: 3_145_728, 8: 6_291_456, 16: 12_582_912},
    ("llama-2-7b", "all-linear"): {4: 9_994_240, 8: 19_988_480, 16: 39_976_960},
}  # fmt: skip
SHARES = {3_145_728: 0.0467, 6_291_456: 0.0933, 12_582_912: 0.187, 9_994_240: 0.148, 39_976_960: 0.593}
EVERY = [recipes.glue(task) for task in recipes.GLUE] + [recipes.commonsense(), recipes.math_reasoning()]


@functools.cache
def pretrained(name):
    """A model of the published size, by its shapes; LLaMA's two generations have the same linear layers."""
    module, _ = zoo.FULL[name]
    return Pretrained(zoo.shapes(module), module, module.config)


def abstract(base, method, head=None):
    return jax.eval_shape(lambda p: peft.adapt(base.replace(params=p), method, key=jax.random.key(0), head=head),
                          base.params)  # fmt: skip


def model_of(recipe):
    return pretrained("roberta-large" if "roberta" in recipe.model else "llama-2-7b")


@pytest.mark.parametrize("task", recipes.GLUE)
def test_the_glue_recipes_are_those_stored_with_the_released_code(task):
    recipe = recipes.glue(task)
    found = (recipe.epochs, recipe.evaluate_every, recipe.learning_rate, recipe.rows_per_update, recipe.schedule)
    assert (*found, recipe.score) == GLUE[task]
    assert (recipe.length, recipe.warmup_share, recipe.weight_decay, recipe.seed) == (128, 0.06, 0.001, 42)
    assert (recipe.method.blocks, recipe.method.block_rank, recipe.dtype) == (4, 4, "float32")


def test_the_recipes_for_llama_are_those_stored_with_the_released_code():
    reasoning, maths = recipes.commonsense(), recipes.math_reasoning()
    assert (reasoning.epochs, reasoning.learning_rate, reasoning.rows_per_update) == (3, 4e-4, 16)
    assert (maths.epochs, maths.learning_rate, maths.rows_per_update) == (12, 3e-4, 64)
    assert (reasoning.new_tokens, maths.new_tokens) == (32, 512)
    for recipe in (reasoning, maths):
        assert (recipe.schedule, recipe.warmup_share, recipe.weight_decay) == ("cosine", 0.1, 0.0)
        assert (recipe.dtype, recipe.length, recipe.answer_only, recipe.method.dropout) == ("bfloat16", 512, True, 0.1)


@pytest.mark.parametrize(("model", "targets"), COUNTS)
def test_adapters_of_the_published_models_have_the_published_numbers_of_parameters(model, targets):
    base, counts = pretrained(model), COUNTS[model, targets]
    adapter = abstract(base, peft.MoRe(blocks=4, block_rank=4, targets=targets))
    assert adapter.parameters == counts[4]
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(base.params))
    for rank, expected in counts.items():
        products = [
            math.prod(layer.stack) * dataclasses.replace(layer.method, block_rank=rank).monarch_shape(layer.shape)
            .parameters
            for layer in adapter.layers
        ]  # fmt: skip
        assert sum(products) == expected
        if expected in SHARES:
            assert 100 * expected / size == pytest.approx(SHARES[expected], rel=5e-3)


@pytest.mark.parametrize("recipe", [recipes.glue("cola"), recipes.commonsense()], ids=lambda recipe: recipe.source)
def test_a_recipe_builds_an_optimizer_that_moves_the_adapter_and_the_head_only(recipe):
    base = model_of(recipe)
    head = {"kernel": jax.ShapeDtypeStruct((1024, 2), np.float32)} if recipe.score == "matthews" else None
    zeros = None if head is None else {"kernel": np.zeros((1024, 2), np.float32)}
    adapter = abstract(base, recipe.method, zeros)
    assert adapter.parameters == (589_824 if head else 3_145_728)
    tree = {"adapter": adapter, "base": base.params}
    chosen = recipe.optimizer(adapter, 8551)
    frozen = chosen.frozen(tree)
    assert all(jax.tree.leaves(frozen["base"])) and not any(jax.tree.leaves(frozen["adapter"].arrays))
    assert not any(jax.tree.leaves(frozen["adapter"].head))


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.source)
def test_the_rate_rises_over_its_share_of_the_updates_and_ends_at_zero(recipe):
    updates = recipe.updates(1000)
    assert updates == recipe.epochs * math.ceil(1000 / recipe.rows_per_update)
    rate = recipe.rate(1000)
    warmup = math.ceil(recipe.warmup_share * updates)
    np.testing.assert_allclose(rate(warmup), recipe.learning_rate, rtol=1e-5)
    np.testing.assert_allclose([rate(0), rate(updates)], 0, atol=1e-9)
    middle = (warmup + updates) / 2
    np.testing.assert_allclose(rate(middle), recipe.learning_rate / 2, rtol=1e-4)  # of a line and of half a cosine
    assert rate.kind == recipe.schedule


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.source)
def test_no_recipe_tests_on_rows_that_train_or_choose(recipe):
    """The released code takes its commonsense test rows from the training files, and chooses on GLUE's test split."""
    splits = recipe.splits
    assert splits.train.startswith("train[:") and splits.validation.startswith("train[")
    assert splits.train[len("train[:") : -1] == splits.validation[len("train[") : -2]
    assert all("train" not in split for split in splits.test.values())
    with pytest.raises(ValueError, match="test must be other rows than those that train and choose"):
        recipes.Splits(splits.train, splits.validation, {"task": splits.validation})


def test_test_sets_have_their_true_sizes_and_math_leaves_out_those_seen_in_training():
    assert recipes.commonsense().splits.test_rows["openbookqa"] == 500
    assert set(recipes.commonsense().splits.test) == set(recipes.COMMONSENSE) and len(recipes.COMMONSENSE) == 8
    assert set(recipes.math_reasoning().splits.test) == {"AQuA", "gsm8k", "mawps", "SVAMP"}


def test_an_unknown_task_and_no_rows_are_refused():
    with pytest.raises(ValueError, match="task must be of GLUE, got 'colla'. Did you mean 'cola'"):
        recipes.glue("colla")
    with pytest.raises(ValueError, match="num_rows must be at least 1, got 0"):
        recipes.glue("cola").updates(0)


def test_a_schedule_of_a_recipe_is_what_the_optimizer_does():
    recipe = recipes.glue("rte")
    adapter = peft.Adapter({"a": {"a": np.ones(3, np.float32)}}, {}, None, {}, {}, recipe.method, ())
    chosen = recipe.optimizer(adapter, 100)
    tree = {"adapter": adapter, "base": {"w": np.ones(2, np.float32)}}
    state = chosen.init({"adapter": adapter, "base": tree["base"]})
    found = optimizer.hyperparameters(state)
    assert float(found["peak"]) == pytest.approx(5.4e-4) and float(found["weight_decay"]) == pytest.approx(0.001)
    assert float(found["steps"]) == recipe.updates(100) == 140 and float(found["warmup_steps"]) == 9
