"""Quantised models in folders: bit for bit in ours; compressed-tensors and transformers read them, and write theirs."""

import dataclasses
import json
import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import NamedSharding, PartitionSpec

from tests.models.conftest import DECODERS, GOLDEN
from zsml_jax import models, transform
from zsml_jax.models.quantized import Quantized, dequantize, quantize

TOKENS = np.array([[5, 7, 9, 6, 8, 10]], np.int32)
#: What compressed-tensors can hold.
SCHEMES = {
    "int8": {"format": "int8"},
    "int4": {"format": "int4"},
    "int4 of groups": {"format": "int4", "group": 4},
    "int4 with zero points": {"format": "int4", "group": 4, "symmetric": False},
    "int8 with zero points": {"format": "int8", "symmetric": False},
    "int8 of a tensor": {"format": "int8", "group": "tensor", "symmetric": False},
    "dynamic": {"format": "int8", "group": "tensor", "activations": "tensor"},
    "by token": {"format": "int8", "activations": "token"},
}
FOLDERS = {
    **{name: DECODERS / name for name in ("llama", "gpt2", "gpt_neox", "qwen2")},
    "bert": GOLDEN / "bert",
    **{name: GOLDEN.parent / name for name in ("mamba", "t5/v1_1")},
}


def small(pretrained, paths="**/kernel", **scheme):
    return pretrained.replace(params=transform.update(pretrained.params, paths, lambda k, _: quantize(k, **scheme)))


def scaled(kernel):
    """A kernel with scales of its inputs, as AWQ gives them."""
    t = np.random.default_rng(0).uniform(0.5, 2, kernel.shape[:-1]).astype(np.float32)
    return dataclasses.replace(quantize(kernel * t[..., None], "int4"), input_scale=jnp.asarray(1 / t))


def there_and_back(pretrained, folder, **options):
    models.save(pretrained, folder, **options)
    again = models.load(folder)
    chex.assert_trees_all_equal(again.params, pretrained.params)
    assert jax.tree.structure(again.params) == jax.tree.structure(pretrained.params)
    assert again.config == pretrained.config
    return again, json.loads((folder / "config.json").read_text())["quantization_config"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_codes_and_scales_come_back_bit_for_bit_from_the_published_layout(name, tmp_path):
    pretrained = small(models.load(FOLDERS["llama"]), **SCHEMES[name])
    again, written = there_and_back(pretrained, tmp_path / "out", max_shard_bytes=3000)
    assert written["quant_method"] == "compressed-tensors"
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    models.save(again.replace(params=dequantize(again.params)), tmp_path / "out")
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("llama", "gpt2") else pytest.mark.slow) for name in FOLDERS]
)
def test_every_family_comes_back(name, tmp_path):
    pretrained = small(models.load(FOLDERS[name]), format="int4", symmetric=False)
    _, written = there_and_back(pretrained, tmp_path / "out")
    assert written["quant_method"] == ("zsml_jax" if name in ("gpt2", "gpt_neox") else "compressed-tensors")


@pytest.mark.parametrize("name", ["nf4", "scales of inputs", "gpt2"])
def test_what_the_published_layout_lacks_comes_back_from_ours(name, tmp_path):
    pretrained = models.load(FOLDERS["gpt2" if name == "gpt2" else "llama"])
    if name == "scales of inputs":
        kernels = transform.update(pretrained.params, "layers/mlp/*/kernel", lambda kernel, _: scaled(kernel))
        pretrained = pretrained.replace(params=kernels)
    else:
        pretrained = small(pretrained, format="nf4" if name == "nf4" else "int8", group=4)
    _, written = there_and_back(pretrained, tmp_path / "out")
    assert written["quant_method"] == "zsml_jax"
    with pytest.raises(ValueError, match="layout 'compressed-tensors' must be able to hold all kernels"):
        models.save(pretrained, tmp_path / "other", layout="compressed-tensors")


def test_some_kernels_may_be_quantised_and_others_not_and_groups_may_differ(tmp_path):
    pretrained = small(models.load(FOLDERS["llama"]), "layers/mlp/*/kernel", format="int4", group=4)
    pretrained = small(pretrained, "layers/attention/query/kernel", format="int8")
    _, written = there_and_back(pretrained, tmp_path / "out")
    assert len(written["config_groups"]) == 2
    targets = [group["targets"] for group in written["config_groups"].values()]
    assert [r"re:model\.layers\.\d+\.self_attn\.q_proj$"] in targets
    assert r"re:model\.layers\.\d+\.self_attn\.k_proj$" in written["ignore"]


def test_a_quantised_folder_is_loaded_onto_a_mesh_and_in_another_dtype(tmp_path):
    pretrained = small(models.load(FOLDERS["llama"]), "layers/mlp/*/kernel", format="int4", group=4)
    models.save(pretrained, tmp_path)
    half = models.load(tmp_path, dtype=jnp.bfloat16).params["layers"]["mlp"]["up"]["kernel"]
    assert half.dtype == "bfloat16" and half.scale.dtype == jnp.float32
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    divided = models.load(tmp_path, sharding=mesh).params
    chex.assert_trees_all_equal(divided, pretrained.params)
    assert divided["layers"]["mlp"]["up"]["kernel"].codes.sharding.spec == PartitionSpec(None, "data", "model")
    asked = []
    copy = NamedSharding(mesh, PartitionSpec())
    models.load(tmp_path, sharding=lambda path: asked.append(path) or copy)
    assert "layers/mlp/up/kernel/codes" in asked and "layers/mlp/up/kernel" not in asked


def test_a_fused_tensor_of_which_a_part_is_quantised_is_refused(tmp_path):
    pretrained = small(models.load(FOLDERS["gpt2"]), "layers/attention/query/kernel", format="int8")
    with pytest.raises(ValueError, match=r"c_attn.weight holds .*, of which only layers\[0\]/attention/query"):
        models.save(pretrained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(quant_method="gptq"), "the quant_method 'gptq' is not supported; supported: "),
        (lambda c: c.update(kv_cache_scheme={"num_bits": 8}), "a kv_cache_scheme is not supported"),
        (lambda c: c.update(config_groups={}), "must have a group of which model.layers.0.mlp.* is a target"),
        (lambda c: _weights(c).update(num_bits=3), "must have integers of 4 or 8 bits, got 3"),
        (lambda c: _weights(c).update(strategy="block"), "must have scales by tensor, channel or group"),
        (lambda c: _weights(c).update(symmetric=False), "is quantised and lacks .'weight_zero_point'."),
        (lambda c: _weights(c).update(group_size=2), r"must have codes .* and scales \(.*, .*\), got"),
        (
            lambda c: c["config_groups"]["group_0"].update(input_activations={"num_bits": 8, "dynamic": False}),
            "must have activations as they are, or rounded for each token",
        ),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(change, message, tmp_path):
    models.save(small(models.load(FOLDERS["llama"]), "layers/mlp/*/kernel", format="int4", group=4), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change(config["quantization_config"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        models.load(tmp_path)


def test_a_layer_that_lacks_its_codes_and_scales_that_are_not_finite_are_refused(tmp_path):
    models.save(small(models.load(FOLDERS["llama"]), "layers/mlp/*/kernel", format="int4", group=4), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    name = "model.layers.0.mlp.up_proj.weight_scale"
    tensors[name] = np.full_like(tensors[name], np.nan)
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(ValueError, match="not finite: the scales of layers/mlp/up/kernel"):
        models.load(tmp_path)
    rest = {name: value for name, value in tensors.items() if "layers.0.mlp.up_proj" not in name}
    safetensors.numpy.save_file(rest, file)
    with pytest.raises(ValueError, match="all layers of layers/mlp/up/kernel must be quantised alike"):
        models.load(tmp_path)


def _weights(config):
    return config["config_groups"]["group_0"]["weights"]


def _peer(folder):
    pytest.importorskip("torch", reason="the oracle extra is not installed")
    transformers = pytest.importorskip("transformers", reason="the oracle extra is not installed")
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries announce their own changes
        return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.slow
@pytest.mark.oracle
# On its way through the meta device transformers 5.23 expects packed zero points not to be packed.
@pytest.mark.parametrize("name", [name for name in SCHEMES if "zero points" not in name])
def test_transformers_reads_what_is_saved_and_computes_the_same(name, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pretrained = small(models.load(FOLDERS["llama"]), "layers/**/kernel", **SCHEMES[name])
    models.save(pretrained, tmp_path)
    peer = _peer(tmp_path)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        expected = peer(torch.tensor(TOKENS).long()).logits.numpy()
    exact = dequantize(pretrained.params)["layers"]
    for i, layer in enumerate(peer.model.layers):
        np.testing.assert_array_equal(layer.mlp.up_proj.weight.detach().numpy(), exact["mlp"]["up"]["kernel"][i].T)
        out = layer.self_attn.o_proj.weight.detach().numpy()
        np.testing.assert_array_equal(out, exact["attention"]["out"]["kernel"][i].T)
    if name != "by token":  # there the peer's codes end at 127.5, and ours at 127
        ours = np.asarray(pretrained.apply(pretrained.params, TOKENS))
        # Where activations are rounded, one between two codes may go the other way.
        np.testing.assert_allclose(ours, expected, atol=0.02 if name == "dynamic" else 2e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("name", SCHEMES)
def test_compressed_tensors_decompresses_what_is_saved_to_the_same_numbers(name, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    pretrained = small(models.load(FOLDERS["llama"]), "layers/mlp/*/kernel", **SCHEMES[name])
    models.save(pretrained, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    (scheme,) = QuantizationConfig.model_validate(written).config_groups.values()
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for site, hub in {"up": "up_proj", "down": "down_proj"}.items():
        exact = dequantize(pretrained.params)["layers"]["mlp"][site]["kernel"]
        for i, kernel in enumerate(exact):
            base = f"model.layers.{i}.mlp.{hub}."
            state = {k.removeprefix(base): torch.tensor(v) for k, v in tensors.items() if k.startswith(base)}
            peer = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)
            np.testing.assert_array_equal(peer["weight"].numpy(), kernel.T)


@pytest.mark.oracle
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_what_compressed_tensors_writes_is_read(symmetric, bits, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=bits, group_size=4, strategy="group", symmetric=symmetric)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    models.save(models.load(FOLDERS["llama"]), tmp_path)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    expected = {}
    for name in [name for name in tensors if "mlp" in name]:
        weight = torch.tensor(tensors.pop(name))
        state = {"weight": weight, "weight_scale": weight.reshape(len(weight), -1, 4).abs().amax(-1) / 2 ** (bits - 1)}
        state["weight_zero_point"] = torch.full(state["weight_scale"].shape, 0 if symmetric else 3, dtype=torch.int8)
        packed = PackedQuantizationCompressor.compress(state, scheme)
        expected[name] = PackedQuantizationCompressor.decompress(packed, scheme)["weight"].numpy()
        tensors |= {f"{name.removesuffix('.weight')}.{key}": value.numpy() for key, value in packed.items()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": scheme.model_dump(mode="json")},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    params = models.load(tmp_path).params
    assert isinstance(params["layers"]["mlp"]["up"]["kernel"], Quantized)
    for i, row in enumerate(dequantize(params)["layers"]["mlp"]["up"]["kernel"]):
        np.testing.assert_array_equal(row, expected[f"model.layers.{i}.mlp.up_proj.weight"].T)
