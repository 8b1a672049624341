"""An adapted model against its merged parameters, closed forms, and itself in another form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft.conftest import TOKENS, randomised
from tests.transform.stacks import LAYERS, Numbered, Scanned, apply_of, numbered_params, random_params
from zsml_jax import peft

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
CONFIGS = {
    "more": peft.MoRe(blocks=2, block_rank=4),
    "lora": peft.LoRA(rank=2, alpha=3.0),
    "rslora": peft.LoRA(rank=4, alpha=3.0, scaling="root_rank"),
    "dora": peft.DoRA(rank=2, alpha=3.0),
    "vera": peft.VeRA(rank=5),
    "ia3": peft.IA3(),
    "oft": peft.OFT(block_size=4),
    "boft": peft.BOFT(block_size=4, factors=2, targets=("query", "mlp/up")),
    "full": peft.FullFineTuning(),
}
apply = jax.jit(peft.apply)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_fresh_adapter_changes_nothing(llama, name):
    adapter = peft.adapt(llama, CONFIGS[name], key=jax.random.key(0))
    np.testing.assert_allclose(apply(llama, adapter, TOKENS), llama.apply(llama.params, TOKENS), atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_merged_model_computes_what_the_adapted_one_does(llama, bert, name):
    for model in (llama, bert):
        adapter = randomised(peft.adapt(model, CONFIGS[name], key=jax.random.key(0)), scale=0.1)
        adapted = apply(model, adapter, TOKENS)
        assert np.abs(adapted - model.apply(model.params, TOKENS)).max() > 1e-2
        np.testing.assert_allclose(model.apply(peft.merge(model, adapter), TOKENS), adapted, atol=1e-5)


def test_other_adapters_never_recompile(llama):
    run = jax.jit(chex.assert_max_traces(peft.apply, 1))
    for seed in range(3):
        config = peft.LoRA(rank=2, alpha=seed + 1.0, dropout=0.1 * (seed + 1), targets="query")
        adapter = randomised(peft.adapt(llama, config, key=jax.random.key(seed)), seed)
        np.testing.assert_allclose(
            run(llama, adapter, TOKENS), llama.apply(peft.merge(llama, adapter), TOKENS), atol=1e-5
        )


def numbered_adapter(adapter):
    """The adapter of the network with numbered layers from that of the scanned one, arrays only."""
    arrays = {
        path.replace("layers/", f"layer_{i}/"): jax.tree.map(lambda leaf: leaf[i], own)  # noqa: B023
        for path, own in adapter.arrays.items()
        for i in range(LAYERS)
    }
    return arrays


@pytest.mark.parametrize("layers", [None, (0, 2), (1,)])
def test_scanned_layers_compute_what_numbered_ones_do(layers):
    params = random_params(Scanned(), X)
    config = peft.MoRe(blocks=2, block_rank=2, layers=layers)
    scanned = randomised(peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0)))
    numbered = peft.init(apply_of(Numbered()), numbered_params(params), config, X, key=jax.random.key(0))
    chosen = range(LAYERS) if layers is None else layers
    assert set(numbered.arrays) == {f"layer_{i}/mlp/{name}" for i in chosen for name in ("up", "down")}
    arrays = {
        f"layer_{i}/mlp/{name}": jax.tree.map(lambda leaf: leaf[row], scanned.arrays[f"layers/mlp/{name}"])  # noqa: B023
        for row, i in enumerate(chosen)
        for name in ("up", "down")
    }
    assert scanned.parameters == numbered.parameters
    outputs = [
        jax.jit(peft.apply_fn(apply_of(module)))(adapter, weights, X)
        for module, adapter, weights in [
            (Scanned(), scanned, params),
            (Scanned(remat=True), scanned, params),
            (Numbered(), numbered.replace(arrays=arrays), numbered_params(params)),
        ]
    ]
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-5)
    np.testing.assert_allclose(outputs[1], outputs[2], atol=1e-5)


def test_gradients_reach_only_what_is_trained(llama):
    adapter = randomised(peft.adapt(llama, CONFIGS["more"], key=jax.random.key(0)))
    gradient = jax.jit(jax.grad(lambda adapter: peft.apply(llama, adapter, TOKENS).sum(), allow_int=True))(adapter)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient.arrays))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient.numbers))


def test_gradients_are_those_of_the_dense_form(llama):
    adapter = randomised(peft.adapt(llama, CONFIGS["more"], key=jax.random.key(0)))
    loss = lambda logits: jnp.mean(jnp.cos(logits))
    ours = jax.jit(jax.grad(lambda adapter: loss(peft.apply(llama, adapter, TOKENS))))(adapter)
    dense = jax.jit(jax.grad(lambda adapter: loss(llama.apply(peft.merge(llama, adapter), TOKENS))))(adapter)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours.arrays, dense.arrays)


def test_dropout_acts_on_the_output_of_the_adapter(key):
    """A unit of the adapter's term is either dropped or divided by the share that is kept; the base is untouched."""
    module, params = Numbered(), random_params(Numbered(), X)
    config = peft.LoRA(rank=2, dropout=0.25, targets="head")
    adapter = randomised(peft.init(apply_of(module), params, config, X, key=key))
    run = jax.jit(peft.apply_fn(apply_of(module)))
    base, plain = apply_of(module)(params, X), run(adapter, params, X)
    ratios = np.stack([(run(adapter, params, X, key=jax.random.key(i)) - base) / (plain - base) for i in range(200)])
    assert np.all(np.isclose(ratios, 0, atol=1e-3) | np.isclose(ratios, 4 / 3, atol=1e-3))
    assert np.mean(ratios > 1) == pytest.approx(0.75, abs=0.03)
    np.testing.assert_array_equal(run(adapter, params, X, key=key), run(adapter, params, X, key=key))


def test_dropout_differs_between_layers_of_a_stack():
    params = random_params(Scanned(), X)
    config = peft.LoRA(rank=1, dropout=0.5, targets="down")
    adapter = randomised(peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0)))
    numbered = peft.init(apply_of(Numbered()), numbered_params(params), config, X, key=jax.random.key(0))
    arrays = {f"layer_{i}/mlp/down": jax.tree.map(lambda a: a[i], adapter.arrays["layers/mlp/down"]) for i in range(3)}  # noqa: B023
    # If all layers dropped the same units, the network with one key for all would give the same numbers.
    key = jax.random.key(5)
    ours = jax.jit(peft.apply_fn(apply_of(Scanned())))(adapter, params, X, key=key)
    others = jax.jit(peft.apply_fn(apply_of(Numbered())))(
        numbered.replace(arrays=arrays), numbered_params(params), X, key=key
    )
    assert np.all(np.isfinite(ours)) and not np.allclose(ours, others)


def test_vmap_over_adapters_equals_a_loop(llama):
    adapters = [
        randomised(peft.adapt(llama, peft.LoRA(rank=2, alpha=a, targets="value"), key=jax.random.key(0)), a)
        for a in (1, 2, 4)
    ]
    many = jax.jit(jax.vmap(peft.apply, (None, 0, None)))(llama, peft.stack(adapters), TOKENS)
    for ours, adapter in zip(many, adapters, strict=True):
        np.testing.assert_allclose(ours, apply(llama, adapter, TOKENS), atol=1e-5)


def test_an_adapter_of_another_model_is_refused(llama, bert):
    adapter = peft.adapt(llama, CONFIGS["lora"], key=jax.random.key(0))
    with pytest.raises(ValueError, match="adapter is of another model: it needs a kernel"):
        peft.apply(bert, adapter, TOKENS)
    wrong = {**adapter.arrays, "layers/mlp/up": {"a": np.ones((3, 16, 5)), "b": np.ones((3, 5, 24))}}
    with pytest.raises(
        ValueError, match=r"must have the shape \(3, 16, 2\) for 'a' at 'layers/mlp/up', got \(3, 16, 5\)"
    ):
        peft.apply(llama, adapter.replace(arrays=wrong), TOKENS)
    with pytest.raises(ValueError, match="arrays for layers that it does not adapt"):
        peft.apply(llama, adapter.replace(arrays={**adapter.arrays, "layers/mlp/sideways": {}}), TOKENS)
    with pytest.raises(ValueError, match="of several adapters"):
        peft.apply(llama, peft.stack([adapter, adapter]), TOKENS)
    full = peft.adapt(llama, CONFIGS["full"], key=jax.random.key(0))
    with pytest.raises(ValueError, match="the model's shape None for the parameter 'layers"):
        peft.apply(bert, full.replace(weights={"layers/mlp/up/kernel": np.ones(3)}), TOKENS)
