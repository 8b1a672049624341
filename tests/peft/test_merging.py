"""Merged parameters: dtypes, what is left alone, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft.conftest import TOKENS, randomised
from tests.transform.stacks import Scanned, apply_of, random_params
from zsml_jax import peft
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.pretrained import Pretrained

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    return random_params(Scanned(), X)


def adapter_of(config, params, seed=0):
    return randomised(peft.init(apply_of(Scanned()), params, config, X, key=jax.random.key(0)), seed)


def test_the_base_is_never_changed_and_unmerging_returns_it_bit_for_bit(llama):
    before = jax.tree.map(np.array, llama.params)
    adapter = randomised(peft.adapt(llama, peft.LoRA(rank=2, targets="query"), key=jax.random.key(0)))
    merged = llama.replace(params=peft.merge(llama, adapter))
    assert np.any(
        merged.params["layers"]["attention"]["query"]["kernel"] != before["layers"]["attention"]["query"]["kernel"]
    )
    jax.tree.map(np.testing.assert_array_equal, peft.unmerge(llama), before)
    assert merged.params["layers"]["mlp"]["up"]["kernel"] is llama.params["layers"]["mlp"]["up"]["kernel"]


def test_sums_are_float32_and_rounded_once_to_the_dtype_of_the_base(params):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    adapter = adapter_of(peft.MoRe(blocks=2, block_rank=2), half)
    exact = peft.merge_params(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half), adapter)
    merged = peft.merge_params(half, adapter)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), merged, exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_tied_embeddings_survive():
    config = DecoderConfig(23, 8, 2, 2, 12, 32, query_bias=True, gated=False, norm="layer", tied=True)
    params = random_params(Decoder(config), TOKENS)
    model = Pretrained(params, Decoder(config), config)
    adapter = randomised(peft.adapt(model, peft.MoRe(blocks=2, block_rank=2), key=jax.random.key(0)), scale=0.1)
    merged = peft.merge(model, adapter)
    assert merged["embeddings"]["word"]["embedding"] is params["embeddings"]["word"]["embedding"]
    assert "head" not in merged
    tokens = TOKENS % 23
    expected = jax.jit(peft.apply)(model, adapter, tokens)
    np.testing.assert_allclose(jax.jit(model.apply)(merged, tokens), expected, atol=1e-5, rtol=1e-5)


def test_numbers_that_are_not_finite_are_refused_by_name(params):
    adapter = adapter_of(peft.LoRA(rank=2), params)
    broken = jax.tree.map(lambda leaf: leaf, adapter)
    broken.arrays["layers/mlp/up"]["a"] = broken.arrays["layers/mlp/up"]["a"].at[0, 0, 0].set(jnp.nan)
    with pytest.raises(ValueError, match=r"adapter must be finite to be merged, got .* at \['0/layers/mlp/up/a'\]"):
        peft.merge_params(params, broken)
    base = jax.tree.map(lambda leaf: leaf, params)
    base["layers"]["mlp"]["down"]["kernel"] = base["layers"]["mlp"]["down"]["kernel"].at[1, 0, 0].set(jnp.inf)
    with pytest.raises(ValueError, match=r"params must be finite .* at \['layers/mlp/down/kernel'\]"):
        peft.merge_params(base, adapter)
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params)
    large = adapter.replace(arrays=jax.tree.map(lambda leaf: 1e4 * leaf, adapter.arrays))
    with pytest.raises(ValueError, match=r"the merged parameters must be finite"):
        peft.merge_params(small, large)


def test_a_quantised_kernel_is_refused(params):
    adapter = adapter_of(peft.LoRA(rank=2, targets="up"), params)
    whole = jax.tree.map(lambda leaf: leaf, params)
    whole["layers"]["mlp"]["up"]["kernel"] = whole["layers"]["mlp"]["up"]["kernel"].astype(jnp.int8)
    with pytest.raises(
        ValueError, match="a floating-point kernel at 'layers/mlp/up' to merge into, got int8, whose steps.*dequantize"
    ):
        peft.merge_params(whole, adapter)


def test_an_adapter_of_another_model_or_several_is_refused(params, llama):
    adapter = adapter_of(peft.LoRA(rank=2), params)
    with pytest.raises(ValueError, match=r"adapter is of another model: it needs a kernel \(3, 4, 6\)"):
        peft.merge(llama, adapter)
    with pytest.raises(ValueError, match="take one with pick"):
        peft.merge_params(params, peft.stack([adapter, adapter]))
