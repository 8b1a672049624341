import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import pytest
import safetensors.numpy

from tests.peft.conftest import GOLDEN, randomised
from zsml_jax import models, peft, transform
from zsml_jax.models.quantized import dequantize, quantize
from zsml_jax.peft.weights_hash import weights_hash

CONFIG = peft.MoRe(blocks=2, block_rank=2, dropout=0.1, targets="query", layers=[1], train="norm/scale")
HEAD = {"dense": {"kernel": jnp.ones((2, 3), jnp.bfloat16)}, "bias": jnp.arange(3.0)}


@pytest.fixture
def saved(llama, tmp_path):
    adapter = randomised(peft.adapt(llama, CONFIG, key=jax.random.key(0), head=HEAD))
    peft.save(adapter, tmp_path / "adapter", llama)
    return adapter, tmp_path / "adapter"


def rewrite(folder, change):
    file = folder / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    change(tensors)
    safetensors.numpy.save_file(tensors, file)


def test_an_adapter_comes_back_bit_for_bit_with_head_and_trained_weights(saved, llama):
    adapter, folder = saved
    again = peft.load(folder, llama)
    chex.assert_trees_all_equal(again, adapter)
    chex.assert_trees_all_equal_shapes_and_dtypes(again, adapter)
    assert jax.tree.structure(again) == jax.tree.structure(adapter)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        peft.LoRA(rank=2, ranks={"query": 3}, scaling="root_rank"),
        peft.DoRA(rank=2),
        peft.VeRA(rank=4),
        peft.IA3(),
        peft.OFT(block_size=4),
        peft.BOFT(block_size=4),
        peft.FullFineTuning(),
        peft.LinearProbe(train="attention_norm/scale"),
    ],
    ids=lambda config: type(config).__name__,
)
@pytest.mark.parametrize("model", ["llama", "bert"])
def test_every_method_comes_back(config, model, tmp_path, request):
    pretrained = request.getfixturevalue(model)
    adapter = randomised(peft.adapt(pretrained, config, key=jax.random.key(0)))
    peft.save(adapter, tmp_path / "out", pretrained)
    again = peft.load(tmp_path / "out", pretrained)
    chex.assert_trees_all_equal(again, adapter)
    assert jax.tree.structure(again) == jax.tree.structure(adapter)


def test_another_base_is_refused_unless_that_is_asked_for(saved, llama, bert):
    adapter, folder = saved
    changed = llama.replace(params=transform.update(llama.params, "norm/scale", lambda leaf, path: leaf.at[0].add(0.5)))
    with pytest.raises(ValueError, match="pretrained must have the weights that were adapted, sha256:.*any_base"):
        peft.load(folder, changed)
    chex.assert_trees_all_equal(peft.load(folder, changed, any_base=True), adapter)
    with pytest.raises(ValueError, match="pretrained must be a llama, as was adapted, got bert"):
        peft.load(folder, bert)


def test_all_tensors_that_do_not_fit_are_listed_at_once(saved, llama):
    _, folder = saved

    def damage(tensors):
        del tensors["arrays/layers/attention/query/first"]
        tensors["arrays/layers/attention/query/second"] = tensors["arrays/layers/attention/query/second"][..., :1]
        tensors["arrays/other"] = tensors["weights/norm/scale"]

    rewrite(folder, damage)
    with pytest.raises(ValueError, match=r"3 problems:(?s:.*)missing: .*first(?s:.*)misshapen: .*second(?s:.*)other"):
        peft.load(folder, llama)


def test_infinite_numbers_stacks_and_foreign_folders_are_refused(saved, llama, tmp_path):
    adapter, folder = saved
    broken = adapter.replace(weights={"norm/scale": adapter.weights["norm/scale"].at[0].set(jnp.nan)})
    with pytest.raises(ValueError, match="not finite: weights/norm/scale"):
        peft.save(broken, folder, llama)
    with pytest.raises(ValueError, match="misshapen"):
        peft.save(peft.stack([adapter, adapter]), folder, llama)
    chex.assert_trees_all_equal(peft.load(folder, llama), adapter)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds no adapter_config\.json"):
        peft.save(adapter, tmp_path / "notes", llama)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(ValueError, match="of the peft library, which import_peft reads"):
        peft.load(folder, llama)


def test_the_hash_is_of_the_numbers_and_their_places_and_not_of_their_dtype(llama):
    half = models.load(GOLDEN / "decoders" / "llama", dtype=jnp.bfloat16)
    assert weights_hash(half.params) == weights_hash(llama.params)
    swapped = transform.update(llama.params, "norm/scale", lambda leaf, path: leaf[::-1])
    assert weights_hash(swapped) != weights_hash(llama.params)


@pytest.mark.slow
def test_the_hash_of_sharded_and_of_quantised_weights_is_that_of_the_arrays(llama):
    coded = transform.update(llama.params, "**/kernel", lambda kernel, path: quantize(kernel, "nf4"))
    assert weights_hash(coded) == weights_hash(dequantize(coded)) != weights_hash(llama.params)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    put = lambda leaf: jax.device_put(leaf, rows) if leaf.shape[0] % 2 == 0 else leaf
    assert weights_hash(jax.tree.map(put, llama.params)) == weights_hash(llama.params)


_KILLED = """
import os, signal, sys
import jax, safetensors.numpy
from zsml_jax import models, peft

pretrained = models.load(sys.argv[1])
safetensors.numpy.save_file = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
peft.save(peft.adapt(pretrained, peft.LoRA(), key=jax.random.key(0)), sys.argv[2], pretrained)
"""


@pytest.mark.slow
def test_a_killed_save_leaves_the_old_adapter(saved, llama):
    adapter, folder = saved
    script = [sys.executable, "-c", _KILLED, str(GOLDEN / "decoders" / "llama"), str(folder)]
    killed = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=False)
    assert killed.returncode == -signal.SIGKILL
    chex.assert_trees_all_equal(peft.load(folder, llama), adapter)
