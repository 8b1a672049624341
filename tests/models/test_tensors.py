import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from zsml_jax.models.tensors import open_tensors


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(3, 2)).astype(np.float32),
        "b": rng.normal(size=4).astype(jnp.bfloat16),
        "c": rng.normal(size=(2, 2)).astype(np.float16),
        "d": np.arange(3),
    }


def write_shards(folder, values, **weight_map):
    files = {}
    for i, (name, value) in enumerate(values.items()):
        files[name] = f"model-{i}.safetensors"
        safetensors.numpy.save_file({name: value}, folder / files[name])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files | weight_map}))


def assert_holds(folder, values):
    tensors = open_tensors(folder)
    assert sorted(tensors) == sorted(values)
    for name, value in values.items():
        assert tensors[name].shape == value.shape
        assert tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(tensors[name].read(), value)


def test_one_safetensors_file_gives_every_dtype_back(tmp_path, values):
    safetensors.numpy.save_file(values, tmp_path / "model.safetensors")
    assert_holds(tmp_path, values)


def test_shards_are_found_through_their_index(tmp_path, values):
    write_shards(tmp_path, values)
    assert_holds(tmp_path, values)


def test_all_missing_shards_are_named(tmp_path, values):
    write_shards(tmp_path, values)
    (tmp_path / "model-1.safetensors").unlink()
    (tmp_path / "model-3.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"\['model-1.safetensors', 'model-3.safetensors'\]"):
        open_tensors(tmp_path)


def test_a_tensor_that_is_not_in_its_shard_is_named(tmp_path, values):
    write_shards(tmp_path, values, ghost="model-0.safetensors")
    with pytest.raises(ValueError, match=r"do not hold them: \['ghost'\]"):
        open_tensors(tmp_path)


def test_an_index_cannot_point_outside_its_folder(tmp_path, values):
    write_shards(tmp_path, values, a="../other/model.safetensors")
    with pytest.raises(ValueError, match="names files outside its folder"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"metadata": {}}', '{"weight_map": 3}'])
def test_a_malformed_index_is_named(text, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match="is not an index of shards"):
        open_tensors(tmp_path)


def test_a_truncated_file_is_refused(tmp_path, values):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(values, path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is damaged, or not a safetensors file"):
        open_tensors(tmp_path)


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors or model\.safetensors\.index\.json"):
        open_tensors(tmp_path)
