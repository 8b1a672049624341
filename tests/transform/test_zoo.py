"""The transforms on models of the zoo: the oracles are transformers, merged weights and the text without a cache."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_decoders, tiny_mambas, tiny_models
from tests.transform.stacks import apply_of, random_params
from zsml_jax import models, transform
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.generate import generate
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.rotary import Rotary

VOCAB, WIDTH, LAYERS, NEW = 23, 8, 2, 6
SHAPE = (VOCAB, WIDTH, LAYERS, 2, 12, 32)
PLAIN = {"query_bias": True, "out_bias": True, "mlp_bias": True, "gated": False, "norm": "layer", "tied": True}
MODULES = {
    "gpt2": Decoder(DecoderConfig(*SHAPE, **PLAIN)),
    "llama": Decoder(DecoderConfig(*SHAPE, num_kv_heads=1, rotary=Rotary(4))),
    "mamba": Mamba(MambaConfig(VOCAB, WIDTH, LAYERS, state_size=3)),
    "bert": Bert(BertConfig(*SHAPE)),
}
#: What leaves a layer: the residual stream is the first part, or the first part of the first.
OUT = {"gpt2": lambda out: out[0][0], "llama": lambda out: out[0][0], "mamba": lambda out: out[0], "bert": lambda x: x}
#: A dense layer of every layer, and its path in the weights.
DENSE = {"gpt2": "layers/mlp/up", "llama": "layers/attention/query", "mamba": "layers/mixer/in_proj"}
TOKENS = np.random.default_rng(0).integers(1, VOCAB, (2, 7)).astype(np.int32)
slow = lambda name: pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def params():
    """Random parameters by family; nothing is zero."""
    return {name: random_params(module, TOKENS) for name, module in MODULES.items()}


def stack(name, captured):
    """The residual stream behind each layer, ``(l, b, t, d)``."""
    if name == "bert":
        return jnp.stack([captured[f"layer_{i}"] for i in range(len(captured))])
    return captured["layers"]


def site(name):
    return "layer_*" if name == "bert" else "layers"


@pytest.mark.parametrize("name", ["gpt2", slow("llama"), "mamba", slow("bert")])
def test_the_captured_residual_stream_ends_in_the_last_hidden_states(name, params):
    """The stream behind the last layer, normed, is what the model itself returns; in BERT every layer is."""
    apply = apply_of(MODULES[name])
    run = jax.jit(transform.capture(apply, [site(name), "**/norm"], OUT[name] if name == "bert" else None))
    output, captured = run(params[name], TOKENS)
    if name == "bert":
        for i, expected in enumerate(output.hidden_states[1:]):
            np.testing.assert_array_equal(captured[f"layer_{i}"], expected)
        return
    stream = OUT[name](captured["layers"])
    assert stream.shape == (LAYERS, *TOKENS.shape, WIDTH)
    np.testing.assert_array_equal(captured["norm"], output.last)
    expected = jax.jit(apply)(params[name], TOKENS)
    np.testing.assert_allclose(output.logits, expected.logits, atol=1e-6)
    centred = stream[-1] - stream[-1].mean(-1, keepdims=True) * (name == "gpt2")
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + MODULES[name].config.norm_eps)
    weights = params[name]["norm"]
    np.testing.assert_allclose(scaled * weights["scale"] + weights.get("bias", 0), output.last, atol=1e-5)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("name", ["gpt2", "llama", "mamba", "bert"])
def test_captured_streams_are_the_hidden_states_of_transformers(name, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    if name == "mamba":
        peer = tiny_mambas.save_tiny_mamba(tmp_path, seed=9)
    elif name == "bert":
        peer = tiny_models.save_tiny_model(tmp_path, "bert", seed=9, layers=3)
    else:
        peer = tiny_decoders.save_tiny_decoder(tmp_path, name, seed=9)
    with torch.no_grad():
        hidden = peer(torch.tensor(TOKENS).long(), output_hidden_states=True).hidden_states
    pretrained = models.load(tmp_path)
    run = transform.capture(apply_of(pretrained.module), site(name), OUT[name])
    output, captured = jax.jit(run)(pretrained.params, TOKENS)
    stream = stack(name, captured)
    assert len(stream) == pretrained.config.num_layers
    # Before the layers there are the embeddings, but in its Mamba; the last is behind the final norm, if there is one.
    behind = {"bert": hidden[1:], "mamba": hidden[:-1]}.get(name, hidden[1:-1])
    assert len(behind) == len(stream) - (name in ("gpt2", "llama"))
    for ours, theirs in zip(stream, behind, strict=False):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    np.testing.assert_allclose(output.last, hidden[-1].numpy(), atol=1e-5)


def steered(name, base):
    """The model whose residual stream is moved by a vector behind each layer."""

    def move(out, vector):
        return (out[0] + vector, out[1]) if name == "mamba" else ((out[0][0] + vector, out[0][1]), out[1])

    def apply(params, *args, **kwargs):
        return transform.edit(base, "layers", move, per_layer=params["vectors"])(params["model"], *args, **kwargs)

    return apply


@pytest.mark.parametrize("name", ["llama", slow("gpt2"), slow("mamba")])
def test_a_steered_text_with_a_cache_is_that_without_one_and_new_vectors_compile_nothing(name, params):
    module = MODULES[name]
    pretrained = Pretrained(params[name], module, module.config)
    chex.clear_trace_counter()  # it counts by the place in this file, of which all families have one
    whole = jax.jit(chex.assert_max_traces(steered(name, apply_of(module)), n=1))
    traces = []

    def counted(*args, **kwargs):
        traces.append(kwargs.keys())
        return steered(name, apply_of(module))(*args, **kwargs)

    texts, made = [], 0
    for scale in (0.0, 3.0, -3.0):
        vectors = scale * jax.random.normal(jax.random.key(5), (LAYERS, WIDTH))
        weights = {"model": params[name], "vectors": vectors}
        generation = generate(pretrained, TOKENS, max_new_tokens=NEW, params=weights, apply_fn=counted)
        row = np.zeros((2, TOKENS.shape[1] + NEW), np.int32)
        row[:, : TOKENS.shape[1]] = TOKENS
        for end in range(TOKENS.shape[1], row.shape[1]):
            row[:, end] = whole(weights, row).logits[:, end - 1].argmax(-1)
        np.testing.assert_array_equal(generation.tokens, row[:, TOKENS.shape[1] :])
        texts.append(generation.tokens.tolist())
        made = made or len(traces)
        assert len(traces) == made
    assert texts[0] != texts[1] and texts[1] != texts[2]


def low_rank(dense, x, adapter):
    return dense(x) + (x @ adapter["a"]) @ adapter["b"]


def adapters(params, name, seed):
    """Random low-rank factors for the dense layer of every layer, ``(l, ...)``."""
    kernel = transform.select(params, f"{DENSE[name]}/kernel")[f"{DENSE[name]}/kernel"]
    first, second = jax.random.split(jax.random.key(seed))
    a = jax.random.normal(first, (LAYERS, kernel.shape[1], 2)) / 4
    return {DENSE[name]: {"a": a, "b": jax.random.normal(second, (LAYERS, 2, kernel.shape[2])) / 4}}


@pytest.mark.parametrize("name", ["gpt2", slow("llama"), slow("mamba")])
def test_an_adapter_equals_merged_weights_in_values_and_gradients_and_new_ones_compile_nothing(name, params):
    apply, weights = apply_of(MODULES[name]), params[name]

    def loss(apply_fn, params):
        log_probs = jax.nn.log_softmax(apply_fn(params, TOKENS[:, :-1]).logits)
        return -jnp.take_along_axis(log_probs, TOKENS[:, 1:, None], axis=-1).mean()

    def adapted(adapter, weights):
        return loss(transform.intercept(apply, {DENSE[name]: low_rank}, per_site=adapter), weights)

    def merged(adapter, weights):
        ab = adapter[DENSE[name]]
        delta = jnp.einsum("ldr,lre->lde", ab["a"], ab["b"])
        return loss(apply, transform.update(weights, f"{DENSE[name]}/kernel", lambda kernel, path: kernel + delta))

    expected_run = jax.jit(jax.value_and_grad(merged, argnums=(0, 1)))
    chex.clear_trace_counter()  # it counts by the place in this file, of which all families have one
    counted = jax.jit(jax.value_and_grad(chex.assert_max_traces(adapted, n=1), argnums=(0, 1)))
    for seed in (1, 2):
        adapter = adapters(weights, name, seed)
        chex.assert_trees_all_close(counted(adapter, weights), expected_run(adapter, weights), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_adapter_writes_the_text_of_merged_weights(params):
    """Through generate, with its cache, and as many traces for the second adapter as for the first: none."""
    module = MODULES["llama"]
    pretrained = Pretrained(params["llama"], module, module.config)
    traces = []

    def adapted(weights, *args, **kwargs):
        traces.append(1)
        apply = transform.intercept(apply_of(module), {DENSE["llama"]: low_rank}, per_site=weights["adapter"])
        return apply(weights["model"], *args, **kwargs)

    counts = []
    for seed in (1, 2):
        adapter = jax.tree.map(lambda x: 8 * x, adapters(params["llama"], "llama", seed))
        (ab,) = adapter.values()
        delta = jnp.einsum("ldr,lre->lde", ab["a"], ab["b"])
        merged = transform.update(params["llama"], f"{DENSE['llama']}/kernel", lambda kernel, path, d=delta: kernel + d)
        weights = {"model": params["llama"], "adapter": adapter}
        ours = generate(pretrained, TOKENS, max_new_tokens=NEW, params=weights, apply_fn=adapted)
        np.testing.assert_array_equal(
            ours.tokens, generate(pretrained, TOKENS, max_new_tokens=NEW, params=merged).tokens
        )
        counts.append(len(traces))
    assert counts[0] == counts[1]
