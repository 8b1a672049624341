import dataclasses
import json
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.models import tiny_decoders, tiny_models
from tests.models.conftest import DECODERS, GOLDEN
from zsml_jax import models
from zsml_jax.models.decoder import Decoder, DecoderConfig

FAMILY_NAMES = sorted(tiny_decoders.SHAPES)
FOLDERS = [DECODERS / name for name in FAMILY_NAMES] + [GOLDEN / "bert", GOLDEN / "distilbert"]


@pytest.mark.parametrize("source", FOLDERS, ids=lambda folder: folder.name)
def test_what_is_saved_loads_as_the_same_model_and_holds_the_very_tensors(source, tmp_path):
    first = models.load(source)
    models.save(first, tmp_path / "out")
    again = models.load(tmp_path / "out")
    assert again.config == first.config
    assert again.model_type == first.model_type
    chex.assert_trees_all_equal(again.params, first.params)
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
    with pytest.raises(ValueError, match="a bert that was not loaded has no config.json to write"):
        models.save(dataclasses.replace(models.load(GOLDEN / "bert"), hub_config="{}"), tmp_path / "out")
    with pytest.raises(ValueError, match="must have a rotary embedding to be of this model type"):
        models.save(dataclasses.replace(pretrained, model_type="llama"), tmp_path / "out")
    config = DecoderConfig(37, 16, 3, 4, 24, 32, tied=True)
    extra = {**pretrained.params, "adapter": np.zeros(3)}
    with pytest.raises(ValueError, match="adapter has no name in the checkpoint"):
        models.save(dataclasses.replace(pretrained, params=extra, config=config), tmp_path / "out")
    assert not (tmp_path / "out").exists()
