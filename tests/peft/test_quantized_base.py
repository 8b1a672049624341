"""Adapters over quantised kernels: what they add is what they add to the dequantised model."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft.conftest import TOKENS, randomised
from zsml_jax import peft, transform
from zsml_jax.models.generate import generate
from zsml_jax.models.quantized import Quantized, dequantize, quantize

METHODS = {
    "lora": peft.LoRA(rank=2),
    "more": peft.MoRe(blocks=2, block_rank=2),
    "dora": peft.DoRA(rank=2),
    "vera": peft.VeRA(rank=4),
    "ia3": peft.IA3(),
    "oft": peft.OFT(block_size=4),
    "boft": peft.BOFT(block_size=4),
    "bitfit": peft.FullFineTuning(train="norm/scale"),
}


def compressed(pretrained, format):
    fit = lambda kernel, path: quantize(kernel, format, group=4 if format != "int8" else "channel")
    return pretrained.replace(params=transform.update(pretrained.params, "**/kernel", fit))


@pytest.mark.slow
def test_dora_takes_the_norms_of_the_dequantised_kernel(llama):
    coded = compressed(llama, "nf4")
    plain = llama.replace(params=dequantize(coded.params))
    adapter = randomised(peft.adapt(coded, peft.DoRA(rank=2, targets="query"), key=jax.random.key(0)), scale=0.1)
    run = jax.jit(peft.apply)
    np.testing.assert_allclose(run(coded, adapter, TOKENS), run(plain, adapter, TOKENS), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("format", ["int8", "int4", "nf4"])
def test_an_adapter_does_over_a_quantised_base_what_it_does_over_the_dequantised(name, format, llama):
    coded = compressed(llama, format)
    plain = llama.replace(params=dequantize(coded.params))
    fresh = peft.adapt(coded, METHODS[name], key=jax.random.key(0))
    chex.assert_trees_all_close(fresh, peft.adapt(plain, METHODS[name], key=jax.random.key(0)), atol=1e-6)
    run = jax.jit(peft.apply)
    np.testing.assert_allclose(run(coded, fresh, TOKENS), jax.jit(coded.apply)(coded.params, TOKENS), atol=1e-5)
    adapter = randomised(fresh, scale=0.1)
    np.testing.assert_allclose(run(coded, adapter, TOKENS), run(plain, adapter, TOKENS), atol=2e-5)
    loss = lambda adapter, model: jnp.mean(jnp.cos(peft.apply(model, adapter, TOKENS)))
    gradient = jax.jit(jax.grad(loss))
    ours, theirs = gradient(adapter, coded), gradient(adapter, plain)
    chex.assert_trees_all_close((ours.arrays, ours.weights), (theirs.arrays, theirs.weights), atol=1e-5)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves((ours.arrays, ours.weights))) > 1e-4


@pytest.mark.slow
def test_eight_bits_move_an_adapted_model_less_than_four(llama):
    adapter = randomised(peft.adapt(llama, METHODS["more"], key=jax.random.key(0)))
    run = jax.jit(peft.apply)
    exact = run(llama, adapter, TOKENS)
    moved = {
        format: np.abs(run(compressed(llama, format), adapter, TOKENS) - exact).max() for format in ("int8", "int4")
    }
    assert 0 < moved["int8"] < 0.05 * np.abs(exact).max() < moved["int4"]


@pytest.mark.slow
def test_a_step_of_training_changes_the_adapter_and_no_code(llama):
    coded = compressed(llama, "nf4")
    adapter = peft.adapt(coded, METHODS["more"], key=jax.random.key(0))
    before = jax.tree.map(np.array, coded.params)

    @jax.jit
    def step(adapter, model):
        loss = lambda adapter: jnp.mean(peft.apply(model, adapter, TOKENS) ** 2)
        value, gradient = jax.value_and_grad(loss)(adapter)
        move = lambda leaf, slope: leaf - 0.05 * slope
        return value, adapter.replace(arrays=jax.tree.map(move, adapter.arrays, gradient.arrays))

    first, adapter = step(adapter, coded)
    second, adapter = step(adapter, coded)
    assert second < first
    chex.assert_trees_all_equal(coded.params, before)


@pytest.mark.slow
def test_an_adapted_quantised_model_writes_what_the_dequantised_one_does(llama):
    coded = compressed(llama, "int8")
    adapter = randomised(peft.adapt(coded, METHODS["more"], key=jax.random.key(0)))

    def written(model):
        params = {"adapter": adapter, "base": model.params}
        return generate(model, TOKENS, params=params, apply_fn=peft.generate_fn(model), max_new_tokens=4).tokens

    np.testing.assert_array_equal(written(coded), written(llama.replace(params=dequantize(coded.params))))


def test_a_quantised_kernel_is_neither_merged_into_nor_trained_in_full(llama):
    coded = compressed(llama, "int8")
    config = peft.MoRe(blocks=2, block_rank=2, targets="query", layers=[1])
    adapter = randomised(peft.adapt(coded, config, key=jax.random.key(0)))
    message = "floating-point kernel at 'layers/attention/query' to merge into, got int8.*dequantize"
    with pytest.raises(ValueError, match=message):
        peft.merge(coded, adapter)
    plain = coded.replace(params=dequantize(coded.params))
    assert not any(isinstance(leaf, Quantized) for leaf in peft.merge(plain, adapter)["layers"]["attention"].values())
    with pytest.raises(ValueError, match="train must name no quantised kernels.*layers/mlp/up/kernel"):
        peft.adapt(coded, peft.FullFineTuning(), key=jax.random.key(0))
