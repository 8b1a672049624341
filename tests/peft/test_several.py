"""Several adapters in one batch, and their weighted sums."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft.conftest import randomised
from tests.transform.stacks import Scanned, apply_of, random_params
from zsml_jax import peft

X = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
ROWS = np.array([2, 0, 1, 1, 2])
CONFIGS = {
    "more": peft.MoRe(blocks=2, block_rank=2, layers=(0, 2)),
    "vera": peft.VeRA(rank=3),
    "dora": peft.DoRA(rank=2),
    "ia3": peft.IA3(targets=("up", "down")),
    "boft": peft.BOFT(block_size=2, targets=("up", "head")),
}
EACH = [pytest.param(name, marks=pytest.mark.slow if name in ("vera", "dora") else ()) for name in CONFIGS]


@pytest.fixture(scope="module")
def params():
    return random_params(Scanned(), X)


def adapter_of(config, params, seed):
    adapter = peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0))
    return randomised(adapter, seed).replace(numbers={name: jnp.float32(seed + 1) for name in adapter.numbers})


@pytest.mark.parametrize("name", EACH)
def test_each_row_of_a_batch_has_its_own_adapter(name, params):
    adapters = [adapter_of(CONFIGS[name], params, seed) for seed in range(3)]
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(peft.apply_fn(apply_of(Scanned())), 1))
    alone = jax.jit(peft.apply_fn(apply_of(Scanned())))
    expected = np.stack([alone(adapter, params, X) for adapter in adapters])
    stacked = peft.stack(adapters)
    for rows in (ROWS, ROWS[::-1].copy()):
        ours = run(stacked, params, X, rows=rows)
        np.testing.assert_allclose(ours, expected[rows, np.arange(5)], atol=1e-4, rtol=1e-5)


def test_an_adapter_of_a_stack_can_be_swapped_and_picked(params):
    adapters = [adapter_of(CONFIGS["more"], params, seed) for seed in range(3)]
    stacked = peft.stack(adapters[:2])
    jax.tree.map(np.testing.assert_array_equal, peft.pick(stacked, 1), adapters[1])
    swapped = jax.tree.map(lambda many, one: many.at[1].set(one), stacked, adapters[2])
    jax.tree.map(np.testing.assert_array_equal, peft.pick(swapped, 1), adapters[2])
    assert jax.tree.structure(peft.pick(stacked, 0)) == jax.tree.structure(adapters[0])


def test_vmap_over_a_stack_equals_a_loop(params):
    adapters = [adapter_of(CONFIGS["more"], params, seed) for seed in range(3)]
    run = peft.apply_fn(apply_of(Scanned()))
    many = jax.jit(jax.vmap(run, (0, None, None)))(peft.stack(adapters), params, X)
    for ours, adapter in zip(many, adapters, strict=True):
        np.testing.assert_allclose(ours, jax.jit(run)(adapter, params, X), atol=1e-4, rtol=1e-5)


def test_the_combination_adds_the_weighted_sum_of_what_each_adds(params):
    """Of different methods, ranks, numbers and layers."""
    configs = [peft.MoRe(blocks=2, block_rank=2, targets="up"), peft.LoRA(rank=3, targets="up"), peft.VeRA(rank=3)]
    adapters = [adapter_of(config, params, seed) for seed, config in enumerate(configs)]
    weights = [0.5, -1.0, 2.0]
    combined = jax.jit(peft.combine)(adapters, weights)
    delta = jax.jit(lambda adapter: jax.tree.map(jnp.subtract, peft.merge_params(params, adapter), params))
    weighted = lambda *parts: sum(w * p for w, p in zip(weights, parts, strict=True))
    expected = jax.tree.map(weighted, *map(delta, adapters))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), delta(combined), expected)
    assert combined.arrays["layers/mlp/up"]["a"].shape == (3, 4, 4 + 3 + 3)
    # It is an adapter as any other: its config makes one of the same shapes.
    again = peft.init(apply_of(Scanned()), params, combined.config, X, key=jax.random.key(0))
    assert jax.tree.structure(again) == jax.tree.structure(combined)


@pytest.mark.slow
def test_combinations_keep_to_the_layers_that_were_chosen(params):
    adapters = [adapter_of(CONFIGS["more"], params, seed) for seed in (0, 1)]
    delta = jax.jit(lambda adapter: jax.tree.map(jnp.subtract, peft.merge_params(params, adapter), params))
    expected = jax.tree.map(jnp.add, *map(delta, adapters))
    combined = peft.combine(adapters, [1.0, 1.0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), delta(combined), expected)
    assert combined.config.layers == (0, 2)


def test_what_cannot_be_stacked_or_combined_is_refused(params):
    lora, other = (adapter_of(peft.LoRA(rank=rank), params, 0) for rank in (2, 3))
    with pytest.raises(ValueError, match="adapters must be alike but for their numbers: number 1 has LoRA"):
        peft.stack([lora, other])
    with pytest.raises(ValueError, match="adapters must have at least one adapter"):
        peft.stack([])
    with pytest.raises(ValueError, match="index must lie in 0 ... 1, got 2"):
        peft.pick(peft.stack([lora, lora]), 2)
    with pytest.raises(ValueError, match="adapters and weights must be as many, and at least one, got 1 and 2"):
        peft.combine([lora], [1.0, 2.0])
    for config in (CONFIGS["dora"], CONFIGS["ia3"], CONFIGS["boft"]):
        with pytest.raises(ValueError, match=f"of a low-rank method, such as .*got {type(config).__name__}"):
            peft.combine([adapter_of(config, params, 0)], [1.0])
    with pytest.raises(ValueError, match="number 1 also trains weights or a head"):
        peft.combine([lora, lora.replace(weights={"head/bias": jnp.ones(2)})], [1.0, 1.0])
    with pytest.raises(ValueError, match="adapters must be of one model and adapt the same layers of 'layers/mlp/up'"):
        peft.combine([lora, adapter_of(peft.LoRA(rank=2, layers=[0]), params, 0)], [1.0, 1.0])
    run = peft.apply_fn(apply_of(Scanned()))
    full = adapter_of(peft.FullFineTuning(), params, 0)
    with pytest.raises(ValueError, match="rows must be None for adapters that train parameters in full"):
        run(peft.stack([full, full]), params, X, rows=ROWS)
    with pytest.raises(ValueError, match="rows must name an adapter for each of the 5 rows at 'layers/mlp/up', got 2"):
        run(peft.stack([lora, lora]), params, X, rows=ROWS[:2])
    with pytest.raises(ValueError, match=r"adapter must have the shape"):
        run(lora, params, X, rows=ROWS)
