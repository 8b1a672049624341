import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_decoders
from tests.models.conftest import DECODERS
from zsml_jax import models
from zsml_jax.data import token_rows, token_store
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.decoder_weights import FAMILIES
from zsml_jax.models.kv_cache import init_cache
from zsml_jax.models.rotary import Rotary

FAMILY_NAMES = sorted(tiny_decoders.SHAPES)


def assert_rows_equal(logits, mask, expected, atol=1e-5):
    for row, is_token, torchs in zip(np.asarray(logits), mask, expected, strict=True):
        np.testing.assert_allclose(row[is_token == 1], torchs, atol=atol)


def check_parity(pretrained, sequences, expected):
    """Logits of all positions under both paddings, at once and from a cache: a prompt, then a token."""
    variables = {"params": pretrained.params}
    apply, run = jax.jit(pretrained.apply), jax.jit(pretrained.module.apply)
    for side in ("left", "right"):
        ids, mask = tiny_decoders.padded(sequences, side)
        logits = apply(pretrained.params, ids, mask)
        assert logits.dtype == jnp.float32
        assert np.isfinite(logits).all()
        assert_rows_equal(logits, mask, expected)
        prompts = [row[:-1] for row in sequences]
        ids, mask = tiny_decoders.padded(prompts, side)
        cache = init_cache(pretrained.config, len(ids), ids.shape[1] + 3)
        out = run(variables, ids, mask, cache=cache)
        assert_rows_equal(out.logits, mask, [e[:-1] for e in expected])
        last = np.array([row[-1] for row in sequences])[:, None]
        out = run(variables, last, cache=out.cache)
        np.testing.assert_allclose(out.logits[:, 0], [e[-1] for e in expected], atol=1e-5)
        assert int(out.cache.length) == ids.shape[1] + 1
    logits = apply(pretrained.params, sequences[0][None])
    np.testing.assert_allclose(logits[0], expected[0], atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_logits_equal_the_recorded_torch_numbers_under_both_paddings_and_from_a_cache(model_type):
    """Golden numbers of transformers for each row without padding."""
    pretrained = models.load(DECODERS / model_type)
    with np.load(DECODERS / model_type / "expected.npz") as recorded:
        expected = [recorded[f"logits_{i}"] for i in range(len(tiny_decoders.LENGTHS))]
    check_parity(pretrained, tiny_decoders.rows(), expected)


ROPE = {"rope_theta": 1000.0}
LLAMA3 = {**ROPE, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {**ROPE, "rope_type": "yarn", "factor": 4.0}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt2", {"scale_attn_weights": False, "activation_function": "relu"}),
        ("gpt2", {"n_inner": None, "tie_word_embeddings": False, "shard": "3KB"}),
        ("gpt_neo", {"attention_types": [[["global"], 4]], "intermediate_size": None}),
        ("gpt_neo", {"attention_types": [[["local"], 3], [["global"], 1]], "window_size": 1}),
        ("gpt_neox", {"use_parallel_residual": False, "attention_bias": False}),
        ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 500, "tie_word_embeddings": True}),
        ("gpt_neox", {"rope_scaling": {"type": "linear", "factor": 2.0}, "hidden_act": "gelu_new"}),
        ("llama", {"rope_parameters": {**LLAMA3, "original_max_position_embeddings": 16}}),
        ("llama", {"rope_parameters": {**YARN, "original_max_position_embeddings": 16}, "num_key_value_heads": 1}),
        ("llama", {"rope_parameters": {**YARN, "original_max_position_embeddings": 16, "truncate": False,
                                       "beta_fast": 8, "mscale": 1.0, "mscale_all_dim": 0.5}}),
        ("llama", {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 6}),
        ("llama", {"num_key_value_heads": None, "hidden_act": "gelu_pytorch_tanh"}),
        ("mistral", {"sliding_window": None, "num_key_value_heads": 4}),
        ("mistral", {"sliding_window": 2, "head_dim": 6}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"attention_bias": True, "use_sliding_window": True, "sliding_window": 2, "max_window_layers": 2}),
    ],
)  # fmt: skip
def test_logits_equal_transformers_for_what_configurations_can_say(model_type, fields, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_decoders.save_tiny_decoder(tmp_path, model_type, seed=3, **fields)
    sequences = tiny_decoders.rows(seed=3)
    check_parity(models.load(tmp_path), sequences, tiny_decoders.torch_logits(model, sequences))


@pytest.fixture(scope="module")
def mixed():
    """A decoder with everything that layers can differ in, with random parameters and a batch."""
    config = DecoderConfig(
        37, 16, 2, 4, 24, 64, num_kv_heads=2, rotary=Rotary(4), window=3, full_layers=(1,), tied=True
    )
    ids, mask = tiny_decoders.padded(tiny_decoders.rows(), "left")
    params = jax.jit(Decoder(config).init)(jax.random.key(1), ids, mask)["params"]
    return config, params, ids, mask


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"unroll": True},
        {"remat": True},
        {"remat": "dots"},
        pytest.param({"remat": True, "unroll": True}, marks=pytest.mark.slow),
    ],
)
def test_scanned_unrolled_and_rematerialised_programs_are_the_same_function_of_the_same_parameters(mixed, changes):
    config, params, ids, mask = mixed
    changed = Decoder(dataclasses.replace(config, **changes))
    shapes = jax.eval_shape(changed.init, jax.random.key(1), ids, mask)["params"]
    chex.assert_trees_all_equal_shapes(params, shapes)

    @functools.partial(jax.jit, static_argnums=0)
    def loss_and_gradients(module, params):
        logits = lambda p: module.apply({"params": p}, ids, mask).logits
        return jax.value_and_grad(lambda p: (jax.nn.log_softmax(logits(p))[..., 5] * mask).sum())(params)

    actual, expected = loss_and_gradients(changed, params), loss_and_gradients(Decoder(config), params)
    chex.assert_trees_all_close(actual, expected, atol=1e-4, rtol=1e-5)


def test_an_unknown_kind_of_rematerialisation_is_refused(mixed, unchecked_types):
    config, _, ids, _ = mixed
    with pytest.raises(ValueError, match="remat must be True, False or 'dots', got 'dot'"):
        jax.eval_shape(Decoder(dataclasses.replace(config, remat="dot")).init, jax.random.key(0), ids)


def test_a_cache_filled_in_pieces_gives_the_logits_of_one_pass(mixed):
    config, params, ids, mask = mixed
    apply, variables = jax.jit(Decoder(config).apply), {"params": params}
    expected = apply(variables, ids, mask).logits
    cache = init_cache(config, 3, 16)
    pieces = []
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        out = apply(variables, ids[:, part], mask[:, part], cache=cache)
        cache = out.cache
        pieces.append(out.logits)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[mask == 1], np.asarray(expected)[mask == 1], atol=1e-5)
    np.testing.assert_array_equal(cache.seen, tiny_decoders.LENGTHS)


def test_only_the_last_token_s_logits_can_be_asked_for_under_both_paddings(mixed):
    config, params, _, _ = mixed
    apply = jax.jit(Decoder(config).apply, static_argnames="only_last")
    for side in ("left", "right"):
        ids, mask = tiny_decoders.padded(tiny_decoders.rows(), side, extra=1)
        full = apply({"params": params}, ids, mask, only_last=False).logits
        out = apply({"params": params}, ids, mask, only_last=True)
        assert out.logits.shape == (3, 1, 37)
        last = [np.flatnonzero(row)[-1] for row in mask]
        np.testing.assert_allclose(out.logits[:, 0], np.asarray(full)[np.arange(3), last], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("learned_positions", [False, True])
def test_packed_documents_have_the_logits_that_each_has_alone(mixed, learned_positions):
    config, params, _, _ = mixed
    if learned_positions:
        config = DecoderConfig(37, 16, 2, 4, 24, 64)
        params = jax.jit(Decoder(config).init)(jax.random.key(1), np.zeros((1, 2), np.int32))["params"]
    apply = jax.jit(Decoder(config).apply)
    store = token_store.tokenize(["abcde", "fgh", "ijklmno", "p"], lambda text: [ord(x) - 96 for x in text])
    rows = token_rows.TokenRows(store, length=9, packing="whole")
    batch = {name: np.stack([rows[i][name] for i in range(len(rows))]) for name in ("tokens", "segments")}
    assert batch["segments"].tolist() == [[1, 1, 1, 1, 1, 2, 2, 2, 3], [1, 1, 1, 1, 1, 1, 1, 0, 0]]
    packed = apply({"params": params}, batch["tokens"], segments_BxT=batch["segments"]).logits
    assert np.isfinite(packed).all()
    for row, at, document in ((0, 0, 0), (0, 5, 1), (0, 8, 3), (1, 0, 2)):
        alone = store.tokens[store.starts[document] : store.starts[document + 1]]
        ids, mask = np.zeros((2, 1, 9), np.int32)
        ids[0, : len(alone)], mask[0, : len(alone)] = alone, 1
        expected = apply({"params": params}, ids, mask).logits[0, : len(alone)]
        np.testing.assert_allclose(packed[row, at : at + len(alone)], expected, atol=1e-5)


def test_segments_with_a_mask_or_of_another_shape_are_refused(mixed, unchecked_types):
    config, _, ids, mask = mixed
    init = functools.partial(jax.eval_shape, Decoder(config).init, jax.random.key(0), ids)
    with pytest.raises(ValueError, match="segments must come without an attention_mask"):
        init(mask, segments_BxT=mask)
    with pytest.raises(ValueError, match=r"segments must have the shape \(3, 9\)"):
        init(segments_BxT=mask[:, :-1])


def test_decoding_steps_of_one_cache_compile_once(mixed):
    config, params, ids, _ = mixed

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(params, tokens, cache):
        out = Decoder(config).apply({"params": params}, tokens, cache=cache)
        return out.logits, out.cache

    cache = init_cache(config, 3, 9)
    logits = []
    for t in range(4):
        new, cache = step(params, ids[:, t : t + 1], cache)
        logits.append(new[:, 0])
    expected = jax.jit(Decoder(config).apply)({"params": params}, ids[:, :4]).logits
    np.testing.assert_allclose(np.stack(logits, 1), expected, atol=1e-5)


def test_vmap_over_stacked_parameters_equals_a_loop(mixed):
    config, params, ids, mask = mixed
    many = [jax.tree.map(lambda x, s=s: x * s, params) for s in (0.5, 1.5)]
    apply = lambda p: Decoder(config).apply({"params": p}, ids, mask).logits
    out = jax.jit(jax.vmap(apply))(jax.tree.map(lambda *xs: jnp.stack(xs), *many))
    np.testing.assert_allclose(out, np.stack([jax.jit(apply)(p) for p in many]), atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits_near_float32():
    full, half = (models.load(DECODERS / "llama", dtype=dtype) for dtype in (jnp.float32, jnp.bfloat16))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half.params))
    ids = tiny_decoders.rows()[0][None]
    expected, logits = (np.asarray(jax.jit(m.apply)(m.params, ids)) for m in (full, half))
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).mean() < 0.03 * np.abs(expected).mean()  # 8 bits: 0.4 % a rounding


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_a_cache_has_the_dtype_that_was_asked_for(mixed, dtype):
    cache = init_cache(mixed[0], 2, 5, dtype)
    assert cache.keys.dtype == (dtype or jnp.float32)
    assert cache.keys.shape == (2, 2, 5, 2, 4)


def test_tokens_that_do_not_fit_into_the_cache_are_refused(mixed):
    config, params, ids, _ = mixed
    apply = lambda tokens, cache: Decoder(config).apply({"params": params}, tokens, cache=cache)
    with pytest.raises(ValueError, match="at most 8 columns, the free slots of the cache, got 9"):
        apply(ids, init_cache(config, 3, 8))
    with pytest.raises(ValueError, match="tokens must have 2 rows, as the cache has, got 3"):
        apply(ids, init_cache(config, 2, 20))
    filled = apply(ids, init_cache(config, 3, 10)).cache
    with pytest.raises(ValueError, match="at most 1 columns, the free slots of the cache, got 2"):
        apply(ids[:, :2], filled)
    with pytest.raises(ValueError, match="batch and length must be at least 1, got 0 and 3"):
        init_cache(config, 0, 3)


def test_more_tokens_than_learned_positions_are_refused():
    pretrained = models.load(DECODERS / "gpt2")
    with pytest.raises(ValueError, match=r"at most 32 columns \(positions\), got 33"):
        pretrained.apply(pretrained.params, np.ones((1, 33), np.int32))


def test_token_types_are_refused_by_a_model_without_them():
    pretrained = models.load(DECODERS / "gpt2")
    ids = np.ones((1, 3), np.int32)
    with pytest.raises(ValueError, match="token_types must be None for a model without token types"):
        pretrained.apply(pretrained.params, ids, None, ids)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "batch"}, "norm must be one of .*, got 'batch'"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"num_layers": 2.0}, "num_layers must be an integer of at least 1, got 2.0"),
        ({"dtype": "int8"}, "dtype must be a floating-point dtype, got int8"),
        ({"activation": "swoosh"}, "activation must be one of .*, got 'swoosh'"),
        ({"num_kv_heads": 3}, "num_kv_heads must divide the 4 heads, got 3"),
        ({"width": 18}, "num_heads must divide the width 18, got 4"),
        ({"rotary": Rotary(6)}, "rotary must rotate at most 4 features, got 6"),
        ({"full_layers": (1, 3)}, r"full_layers must lie in 0 \.\.\. 2, got \[3\]"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(fields, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        DecoderConfig(**{"vocab_size": 37, "width": 16, "num_layers": 3, "num_heads": 4, "mlp_width": 24,
                         "max_positions": 64, **fields})  # fmt: skip


#: The fields of the published config.json files that shapes depend on, and the published number of parameters.
PUBLISHED = {
    "gpt2": ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
              "vocab_size": 50257, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-05}, 124_439_808),
    "pythia-410m": ({"model_type": "gpt_neox", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                     "intermediate_size": 4096, "max_position_embeddings": 2048, "rotary_emb_base": 10000,
                     "rotary_pct": 0.25, "use_parallel_residual": True, "vocab_size": 50304, "hidden_act": "gelu",
                     "layer_norm_eps": 1e-05, "tie_word_embeddings": False}, 405_334_016),
    "llama-2-7b": ({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                    "num_key_value_heads": 32, "intermediate_size": 11008, "max_position_embeddings": 4096,
                    "vocab_size": 32000, "rms_norm_eps": 1e-05, "rope_scaling": None}, 6_738_415_616),
    "llama-3.1-8b": ({"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                      "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 131072,
                      "vocab_size": 128256, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
                      "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original_max_position_embeddings": 8192, "rope_type": "llama3"}},
                     8_030_261_248),
    "mistral-7b": ({"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                    "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 32768,
                    "vocab_size": 32000, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "sliding_window": 4096},
                   7_241_732_096),
    "qwen2.5-7b": ({"model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
                    "num_key_value_heads": 4, "intermediate_size": 18944, "max_position_embeddings": 131072,
                    "vocab_size": 152064, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 131072,
                    "use_sliding_window": False, "max_window_layers": 28, "tie_word_embeddings": False},
                   7_615_616_512),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_full_sizes_have_the_published_number_of_parameters(name, key):
    hub, count = PUBLISHED[name]
    config = FAMILIES[hub["model_type"]].config(hub, (), "float32")
    shapes = jax.eval_shape(Decoder(config).init, key, jax.ShapeDtypeStruct((1, 2), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
