import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from tests.models import tiny_decoders, tiny_models
from tests.models.conftest import DECODERS, GOLDEN
from zsml_jax import models
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.hub_fields import OLD_SPELLINGS
from zsml_jax.models.mamba import MambaConfig
from zsml_jax.models.pretrained import FAMILIES, Pretrained
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.tokenizer import Tokenizer

FAMILY_NAMES = sorted(tiny_decoders.SHAPES)
FOLDERS = [
    *(DECODERS / name for name in FAMILY_NAMES),
    *(GOLDEN / name for name in ("bert", "distilbert", "roberta", "albert")),
    *(GOLDEN.parent / name for name in ("mamba", "clip", "t5/v1_0", "t5/v1_1")),
]


@pytest.mark.parametrize("source", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_saved_loads_as_the_same_model_and_holds_the_very_tensors(source, tmp_path):
    first = models.load(source)
    models.save(first, tmp_path / "out")
    again = models.load(tmp_path / "out")
    for name in ("config", "model_type", "sentence", "image"):
        assert getattr(again, name) == getattr(first, name)
    chex.assert_trees_all_equal(again.params, first.params)
    read, written = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out"))
    assert not set(read) - set(written) - set(OLD_SPELLINGS)
    if (source / "model.safetensors").is_file():
        written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
        chex.assert_trees_all_equal(written, safetensors.numpy.load_file(source / "model.safetensors"))
    if first.tokenizer is not None:
        chex.assert_trees_all_equal(*(model.tokenizer.ragged(tiny_models.TEXTS) for model in (again, first)))


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_transformers_loads_what_is_saved_with_equal_logits(model_type, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    pretrained = models.load(DECODERS / model_type)
    models.save(pretrained, tmp_path / "out", max_shard_bytes=4000)
    peer, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    original = transformers.AutoModelForCausalLM.from_pretrained(DECODERS / model_type)
    chex.assert_trees_all_equal(*({k: v.numpy() for k, v in m.state_dict().items()} for m in (peer, original)))
    chex.assert_trees_all_equal(*(tiny_decoders.torch_logits(m.eval(), tiny_decoders.rows()) for m in (peer, original)))


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gpt2", {}),
        ("gpt_neo", {}),
        ("gpt_neox", {"query_bias": False, "out_bias": False, "parallel": False}),
        ("mistral", {"window": 2}),
        ("qwen2", {"window": 2, "full_layers": (0, 2)}),
        ("qwen3", {"tied": True}),
    ],
)
def test_transformers_reads_the_configuration_of_a_model_that_was_changed_here(model_type, fields, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    loaded = models.load(DECODERS / model_type)
    config = dataclasses.replace(loaded.config, **{"mlp_width": 12, "max_positions": 30, **fields})
    ids = tiny_decoders.rows()[0][None]
    params = jax.jit(Decoder(config).init)(jax.random.key(3), ids)["params"]
    made = dataclasses.replace(loaded, params=params, module=Decoder(config), config=config, hub_config="{}")
    models.save(made, tmp_path / "out")
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager").eval()
    (expected,) = tiny_decoders.torch_logits(peer, [ids[0]])
    np.testing.assert_allclose(jax.jit(made.apply)(params, ids)[0], expected, atol=1e-5)
    assert models.load(tmp_path / "out").config == config


def test_large_weights_are_split_into_shards_with_an_index(tmp_path):
    pretrained = models.load(DECODERS / "llama")
    models.save(pretrained, tmp_path / "out", max_shard_bytes=4000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert len(files) > 2
    sizes = [sum(v.nbytes for v in safetensors.numpy.load_file(tmp_path / "out" / file).values()) for file in files]
    assert max(sizes) <= 4000
    assert sum(sizes) == index["metadata"]["total_size"]
    chex.assert_trees_all_equal(models.load(tmp_path / "out").params, pretrained.params)


def test_bfloat16_weights_are_saved_as_such(tmp_path):
    half = models.load(DECODERS / "llama", dtype=jnp.bfloat16)
    models.save(half, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    assert safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")["lm_head.weight"].dtype == jnp.bfloat16
    chex.assert_trees_all_equal(models.load(tmp_path / "out", dtype=jnp.bfloat16).params, half.params)


def test_older_spellings_are_written_in_the_newer_one(tmp_path):
    folder = shutil.copytree(DECODERS / "llama", tmp_path / "old")
    config = json.loads((folder / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    old = models.load(folder)
    models.save(old, tmp_path / "new")
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written["rope_parameters"] == {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0}
    assert not {"rope_theta", "rope_scaling", "torch_dtype"} & set(written)
    assert models.load(tmp_path / "new").config == old.config


def test_a_folder_with_a_model_is_replaced_as_a_whole(tmp_path):
    models.save(models.load(DECODERS / "llama"), tmp_path / "out", max_shard_bytes=4000)
    models.save(models.load(DECODERS / "gpt2"), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert models.load(tmp_path / "out").model_type == "gpt2"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_save_leaves_the_old_model_and_nothing_half_written(tmp_path, monkeypatch):
    pretrained = models.load(DECODERS / "gpt2")
    models.save(pretrained, tmp_path / "out")

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        models.save(pretrained, tmp_path / "out")
    monkeypatch.undo()
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda a, b: full() if str(a).endswith("new") else rename(a, b))
    with pytest.raises(OSError, match="disk full"):
        models.save(pretrained, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    chex.assert_trees_all_equal(models.load(tmp_path / "out").params, pretrained.params)


def test_what_cannot_be_saved_is_refused(tmp_path):
    pretrained = models.load(DECODERS / "gpt2")
    with pytest.raises(ValueError, match="model_type must be one of .*'gpt2'.*, got 'gpt9'"):
        models.save(dataclasses.replace(pretrained, model_type="gpt9"), tmp_path / "out")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no config\.json"):
        models.save(pretrained, tmp_path)
    with pytest.raises(ValueError, match="must have a rotary embedding to be of this model type"):
        models.save(dataclasses.replace(pretrained, model_type="llama"), tmp_path / "out")
    config = DecoderConfig(37, 16, 3, 4, 24, 32, tied=True)
    extra = {**pretrained.params, "adapter": np.zeros(3)}
    with pytest.raises(ValueError, match="adapter has no name in the checkpoint"):
        models.save(dataclasses.replace(pretrained, params=extra, config=config), tmp_path / "out")
    less = {name: value for name, value in pretrained.params.items() if name != "norm"}
    with pytest.raises(ValueError, match=r"norm/bias is missing, must be \(16,\)"):
        models.save(dataclasses.replace(pretrained, params=less), tmp_path / "out")
    with pytest.raises(ValueError, match=r"word/embedding is \(37, 16\), must be \(40, 16\)"):
        models.save(
            dataclasses.replace(pretrained, config=dataclasses.replace(config, vocab_size=40)), tmp_path / "out"
        )
    for fields in ({"attention_scale": 0.5}, {"window": 4}, {"parallel": True}):
        other = dataclasses.replace(pretrained, config=dataclasses.replace(pretrained.config, **fields))
        with pytest.raises(ValueError, match=f"config cannot be that of a gpt2; .*: {next(iter(fields))} is"):
            models.save(other, tmp_path / "out")
    plain = models.load(GOLDEN / "albert")
    plain = dataclasses.replace(plain, config=dataclasses.replace(plain.config, head_activation="relu"))
    with pytest.raises(ValueError, match="config cannot be that of a albert; .*head_activation is 'relu'"):
        models.save(plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def made_here(model_type, config, tokenizer=None):
    """A model with fresh parameters, as an experiment that trains from scratch has it."""
    module = FAMILIES[model_type].module(config)
    params = jax.jit(module.init)(jax.random.key(4), np.ones((1, 2), np.int32))["params"]
    return Pretrained(params, module, config, tokenizer, model_type=model_type)


def bpe():
    """A byte BPE that is trained on the tests' texts."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(tiny_models.TEXTS, vocab_size=290, special_tokens=["<|endoftext|>", "<pad>"])
    inner = tokenizers.Tokenizer.from_str(trained.to_str())
    return Tokenizer.of(inner, max_length=32, eos_token="<|endoftext|>", pad_token="<pad>")


MADE = {
    "gpt2": DecoderConfig(
        *(290, 16, 2, 4, 24, 32), query_bias=True, out_bias=True, mlp_bias=True, gated=False, activation="gelu_new",
        norm="layer", norm_eps=1e-5, tied=True,
    ),
    "llama": DecoderConfig(290, 16, 2, 4, 24, 32, num_kv_heads=2, rotary=Rotary(4), tied=True),
    "mamba": MambaConfig(290, 12, 2, state_size=4),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MADE)
def test_a_model_that_was_made_here_is_saved_with_its_tokenizer(model_type, tmp_path):
    made = made_here(model_type, MADE[model_type], bpe())
    models.save(made, tmp_path / "out")
    again = models.load(tmp_path / "out")
    chex.assert_trees_all_equal(again.params, made.params)
    chex.assert_trees_all_equal(*(model.tokenizer.ragged(tiny_models.TEXTS) for model in (again, made)))
    assert (again.tokenizer.special, again.tokenizer.pad_id) == (made.tokenizer.special, made.tokenizer.pad_id)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (fields["eos_token_id"], fields["pad_token_id"]) == (0, 1)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("model_type", MADE)
def test_transformers_reads_a_model_that_was_made_here_and_its_tokenizer(model_type, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    made = made_here(model_type, MADE[model_type], bpe())
    models.save(made, tmp_path / "out")
    peer, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    peer_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    rows = made.tokenizer.ragged(["The cat sat on the mat.", "very happy dogs"])
    for row, text in zip(rows, ["The cat sat on the mat.", "very happy dogs"], strict=True):
        assert peer_tokenizer(text)["input_ids"] == row.tolist()
    for row, expected in zip(rows, tiny_decoders.torch_logits(peer.eval(), rows), strict=True):
        np.testing.assert_allclose(made.apply(made.params, row[None])[0], expected, atol=1e-5)
    assert (peer_tokenizer.eos_token_id, peer.generation_config.eos_token_id) == (0, 0)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("source", FOLDERS[-8:], ids=lambda folder: folder.name)
@pytest.mark.parametrize("made", [False, True])
def test_what_transformers_makes_of_encoders_and_others_is_the_model_that_was_saved(source, made, tmp_path):
    """Saved here, loaded and saved by transformers, loaded here; also without the fields that were read."""
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    first = models.load(source)
    first = dataclasses.replace(first, hub_config="{}") if made else first
    models.save(first, tmp_path / "ours")
    (name,) = json.loads((tmp_path / "ours" / "config.json").read_text())["architectures"]
    peer, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values())
    peer.save_pretrained(tmp_path / "theirs")
    again = models.load(tmp_path / "theirs")
    assert again.config == first.config
    chex.assert_trees_all_equal(again.params, first.params)


_KILLED = """
import os, signal, sys
import safetensors.numpy
import tokenizers
from zsml_jax import models

pretrained = models.load(sys.argv[1])
die = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
rename, save_file = os.rename, safetensors.numpy.save_file
if sys.argv[3] == "in the weights":
    safetensors.numpy.save_file = lambda tensors, path, *_: die() if "00002" in path.name else save_file(tensors, path)
else:
    os.rename = lambda a, b: die() if str(a).endswith("new") else rename(a, b)
models.save(pretrained, sys.argv[2], max_shard_bytes=4000)
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in the weights", "between the renames"])
def test_a_killed_save_leaves_whole_models_only(place, tmp_path):
    """SIGKILL, so that nothing is cleaned up."""
    models.save(models.load(DECODERS / "gpt2"), tmp_path / "out")
    script = [sys.executable, "-c", _KILLED, str(DECODERS / "llama"), str(tmp_path / "out"), place]
    killed = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=False)
    assert killed.returncode == -signal.SIGKILL
    (hidden,) = tmp_path.glob(".out-*")
    if place == "in the weights":
        assert models.load(tmp_path / "out").model_type == "gpt2"
    else:
        assert not (tmp_path / "out").exists()
        assert (models.load(hidden / "old").model_type, models.load(hidden / "new").model_type) == ("gpt2", "llama")
    models.save(models.load(DECODERS / "mistral"), tmp_path / "out")
    assert models.load(tmp_path / "out").model_type == "mistral"


def test_a_model_that_cannot_be_put_back_is_kept(tmp_path, monkeypatch):
    models.save(models.load(DECODERS / "gpt2"), tmp_path / "out")
    rename = os.rename

    def refuse(a, b):
        if str(b).endswith("old"):
            return rename(a, b)
        raise OSError("read-only")

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="read-only"):
        models.save(models.load(DECODERS / "llama"), tmp_path / "out")
    (hidden,) = tmp_path.glob(".out-*")
    assert models.load(hidden / "old").model_type == "gpt2"
