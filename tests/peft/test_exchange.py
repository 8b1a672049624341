"""The layout of the ``peft`` library, without the library."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.peft.conftest import randomised
from zsml_jax import peft

CONFIG = peft.MoRe(blocks=2, block_rank=2, targets="query", layers=[1])
KEY = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.fixture
def exported(llama, tmp_path):
    adapter = randomised(peft.adapt(llama, CONFIG, key=jax.random.key(0)))
    peft.export_lora(llama, adapter, tmp_path / "out")
    return adapter, tmp_path / "out"


def test_an_exported_lora_has_the_hubs_names_the_rank_n_r_and_the_same_product(exported):
    adapter, folder = exported
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (4, 4, ["model.layers.1.self_attn.q_proj"])
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    assert sorted(tensors) == [f"{KEY}.lora_A.weight", f"{KEY}.lora_B.weight"]
    (layer,) = adapter.layers
    row = jax.tree.map(lambda leaf: leaf[0], adapter.arrays[layer.path])
    delta = layer.method.delta(layer.shape, row, adapter.numbers)
    product = tensors[f"{KEY}.lora_B.weight"] @ tensors[f"{KEY}.lora_A.weight"]
    np.testing.assert_allclose(product.T, delta, atol=1e-6)


def test_what_a_lora_folder_cannot_hold_is_refused(llama, tmp_path):
    adapt = lambda config, **kwargs: peft.adapt(llama, config, key=jax.random.key(0), **kwargs)
    with pytest.raises(ValueError, match="low-rank method, such as MoRe, LoRA or VeRA, got IA3"):
        peft.export_lora(llama, adapt(peft.IA3()), tmp_path / "out")
    with pytest.raises(ValueError, match="no place for parameters in full or a head"):
        peft.export_lora(llama, adapt(CONFIG, head={"bias": np.zeros(2)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_bias": True, "bias": "all"}, "fields are not supported: .*'bias': 'all'.*'lora_bias': True"),
        ({"init_lora_weights": "pissa"}, "fields are not supported: .*pissa"),
        ({"r": 3}, r"2 problems:(?s:.*)lora_A.weight is \(4, \d+\), must be \(3, \d+\)"),
        ({"peft_type": "LOHA"}, "peft_type must be one of .*GRALORA.*LORA.*, got 'LOHA'"),
    ],
)
def test_fields_that_are_not_supported_are_named(fields, message, exported, llama):
    _, folder = exported
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(ValueError, match=message):
        peft.import_peft(folder, llama)


def test_tensors_that_do_not_fit_are_listed_at_once(exported, llama):
    _, folder = exported
    file = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors["base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"] = tensors.pop(f"{KEY}.lora_A.weight")
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(ValueError, match=r"2 problems:(?s:.*)unexpected: .*layers\.7(?s:.*)missing: .*lora_A"):
        peft.import_peft(folder, llama)
