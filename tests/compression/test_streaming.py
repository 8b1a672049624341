"""Compression from folder to folder against the same in memory, also after it was killed."""

import json
import os
import signal
import subprocess
import sys

import chex
import numpy as np
import pytest

from tests.models.conftest import DECODERS, GOLDEN
from zsml_jax import compression, models
from zsml_jax.compression import Calibration, groups, prune_folder, quantize_folder, streaming
from zsml_jax.models.pretrained import open_lazily

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)
FOLDERS = {
    "llama": DECODERS / "llama", "gpt2": DECODERS / "gpt2", "bert": GOLDEN / "bert", "albert": GOLDEN / "albert",
    "mamba": GOLDEN.parent / "mamba", "t5": GOLDEN.parent / "t5/v1_1",
}  # fmt: skip
PRUNING = {"wanda": {}, "sparsegpt": {"within": "2:4"}}
QUANTISATION = {"gptq": {"format": "int4", "group": 4, "symmetric": False}, "awq": {"format": "int4"}}


def data_of(name):
    """A model in shapes, and tokens for it."""
    pretrained, _ = open_lazily(FOLDERS[name])
    rng = np.random.default_rng(0)
    draw = lambda width: rng.integers(1, pretrained.config.vocab_size, (5, width)).astype(np.int32)
    return Calibration(pretrained, draw(9), draw(4) if name == "t5" else None, batch_size=3)


def layers_of(pretrained):
    found = groups(pretrained)
    return [*found.attention, *found.feed_forward, *found.mixer]


def run(name, method, target, **changes):
    """From folder to folder."""
    data = data_of(name)
    given = {"groups": layers_of(data.pretrained), "calibration": data} | changes
    if method in PRUNING:
        prune_folder(FOLDERS[name], target, method, 0.5, **PRUNING[method] | given)
    else:
        quantize_folder(FOLDERS[name], target, method, **QUANTISATION[method] | given)


def in_memory(name, method):
    data, params = data_of(name), models.load(FOLDERS[name]).params
    given = {"groups": layers_of(data.pretrained), "calibration": data}
    if method in PRUNING:
        return compression.prune(params, method, 0.5, **PRUNING[method] | given).params
    return compression.quantize(params, method, **QUANTISATION[method] | given)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("llama", "wanda"),
        pytest.param("llama", "sparsegpt", marks=pytest.mark.slow),
        ("llama", "gptq"),
        pytest.param("gpt2", "awq", marks=pytest.mark.slow),
        pytest.param("bert", "gptq", marks=pytest.mark.slow),
        pytest.param("albert", "wanda", marks=pytest.mark.slow),
        pytest.param("mamba", "wanda", marks=pytest.mark.slow),
        pytest.param("t5", "wanda", marks=pytest.mark.slow),
        pytest.param("t5", "gptq", marks=pytest.mark.slow),
    ],
)
def test_a_folder_becomes_what_the_model_becomes_in_memory(name, method, tmp_path):
    run(name, method, tmp_path / "out")
    again = models.load(tmp_path / "out")
    chex.assert_trees_all_equal(again.params, in_memory(name, method))
    assert again.config == models.load(FOLDERS[name]).config
    assert os.listdir(tmp_path) == ["out"]
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    pieces = len(files)
    assert [file.name for file in files] == [f"model-{i + 1:05d}-of-{pieces:05d}.safetensors" for i in range(pieces)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), [("llama", "gptq"), pytest.param("t5", "wanda", marks=pytest.mark.slow)])
def test_after_a_kill_only_the_blocks_that_are_left_are_compressed(name, method, tmp_path, monkeypatch):
    write, compress, calls = streaming._write, streaming.compress_block, []
    data = data_of(name)
    blocks = sum(stack.length for stack in streaming.stacks(data.pretrained))

    def write_some(tensors, file):
        if len(calls) == blocks - 1:
            raise KeyboardInterrupt
        write(tensors, file)

    def count(*arguments, **options):
        calls.append(arguments[1])
        return compress(*arguments, **options)

    monkeypatch.setattr(streaming, "compress_block", count)
    monkeypatch.setattr(streaming, "_write", write_some)
    with pytest.raises(KeyboardInterrupt):
        run(name, method, tmp_path / "out")
    assert not (tmp_path / "out").exists() and len(calls) == blocks - 1
    monkeypatch.setattr(streaming, "_write", write)
    with pytest.raises(ValueError, match="must be without unfinished work of another job, and .*out-unfinished holds"):
        run(name, method, tmp_path / "out", groups=layers_of(data.pretrained)[:1])
    calls.clear()
    run(name, method, tmp_path / "out")
    assert len(calls) == 2  # the one whose file was not written, and the last
    chex.assert_trees_all_equal(models.load(tmp_path / "out").params, in_memory(name, method))
    assert os.listdir(tmp_path) == ["out"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from tests.compression import test_streaming
from zsml_jax.compression import streaming

write = streaming._write

def killed(tensors, file):
    write(tensors, file)
    if file.name.startswith("model-00002"):
        os.kill(os.getpid(), signal.SIGKILL)

streaming._write = killed
test_streaming.run("llama", "wanda", Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_process_that_was_killed_at_a_block_boundary_is_gone_on_with(tmp_path):
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = sorted(file.name for file in (tmp_path / ".out-unfinished").glob("*.safetensors"))
    assert [name[:11] for name in left] == ["model-00001", "model-00002"]
    before = (tmp_path / ".out-unfinished" / left[0]).stat().st_mtime_ns
    run("llama", "wanda", tmp_path / "out")
    assert (tmp_path / "out" / left[0]).stat().st_mtime_ns == before
    # The killed process had other compiler flags than the tests have, so that its last digits may differ.
    chex.assert_trees_all_close(models.load(tmp_path / "out").params, in_memory("llama", "wanda"), atol=1e-6)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, unchecked_types):
    for method, changes, message in [
        ("wanda", {"groups": "head/kernel"}, "groups must be kernels in layers"),
        ("wanda", {"groups": "layers/attention_norm/scale"}, "groups must be kernels of dense layers"),
        ("wanda", {"within": "global"}, "within must be 'layer', 'output', 'rows' or such as '2:4' with 'wanda'"),
        ("gptq", {"group": 5}, "group must be even, and divide"),
        ("awq", {"layout": "compressed-tensors"}, "cannot:\n  layers/.*: it has no scales of inputs"),
    ]:
        with pytest.raises(ValueError, match=message):
            run("llama", method, tmp_path / "out", **changes)
    with pytest.raises(ValueError, match="method must be 'wanda' or 'sparsegpt' for folders, got 'magnitude'"):
        prune_folder(FOLDERS["llama"], tmp_path, "magnitude", 0.5, groups="x", calibration=data_of("llama"))
    with pytest.raises(ValueError, match="method must be 'gptq', 'awq' or 'smoothquant' for folders, got 'nearest'"):
        quantize_folder(FOLDERS["llama"], tmp_path, "nearest", groups="x", calibration=data_of("llama"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="folder must be new or hold a model"):
        run("llama", "wanda", tmp_path / "other")
    assert os.listdir(tmp_path) == ["other"]


def test_the_written_folder_says_what_it_is(tmp_path):
    run("llama", "gptq", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "compressed-tensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["model.layers.0.mlp.up_proj.weight_packed"].startswith("model-00001-of-")
