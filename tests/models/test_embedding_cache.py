import logging

import numpy as np
import pytest

from zsml_jax.models.embedding_cache import corpus_key, read_embeddings, write_embeddings

PARAMS = {"a": {"w": np.ones((2, 3), np.float32)}, "b": np.zeros(3, np.float32)}
SEQUENCES = [np.array([1, 2, 3], np.int32), np.array([4], np.int32)]
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("params", "settings", "sequences"),
    [
        (PARAMS | {"b": np.array([0, 0, 1e-7], np.float32)}, ("s",), SEQUENCES),
        (PARAMS | {"b": np.zeros(3, np.int32)}, ("s",), SEQUENCES),
        (PARAMS | {"a": {"w": np.ones((3, 2), np.float32)}}, ("s",), SEQUENCES),
        ({"a": {"v": PARAMS["a"]["w"]}, "b": PARAMS["b"]}, ("s",), SEQUENCES),
        (PARAMS, ("t",), SEQUENCES),
        (PARAMS, ("s",), SEQUENCES[::-1]),
        (PARAMS, ("s",), [np.array([1, 2], np.int32), np.array([3, 4], np.int32)]),
    ],
)
def test_whatever_decides_the_result_changes_the_key(params, settings, sequences):
    assert corpus_key(params, settings, sequences) != corpus_key(PARAMS, ("s",), SEQUENCES)


def test_the_key_is_the_same_for_the_same_content_in_another_order_of_the_dict():
    copied = {"b": PARAMS["b"].copy(), "a": {"w": PARAMS["a"]["w"].copy()}}
    assert corpus_key(copied, ("s",), list(SEQUENCES)) == corpus_key(PARAMS, ("s",), SEQUENCES)


def test_what_is_written_is_read_back_and_leaves_no_other_file(cache_folder):
    assert read_embeddings("k", 2) is None
    write_embeddings("k", VALUES)
    np.testing.assert_array_equal(read_embeddings("k", 2), VALUES)
    assert [path.name for path in (cache_folder / "embeddings").iterdir()] == ["k.safetensors"]


def damage_flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        damage_flip,
        lambda path: path.write_bytes(path.read_bytes()[:-3]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no tensors at all, but some length"),
    ],
    ids=["a flipped bit", "a cut end", "an empty file", "another file"],
)
def test_damage_is_noticed_and_told(damage, cache_folder, caplog):
    write_embeddings("k", VALUES)
    damage(cache_folder / "embeddings" / "k.safetensors")
    with caplog.at_level(logging.WARNING):
        assert read_embeddings("k", 2) is None
    assert "damaged" in caplog.text


def test_a_file_with_another_number_of_rows_is_not_taken(cache_folder):
    write_embeddings("k", VALUES)
    assert read_embeddings("k", 3) is None


def test_a_file_of_safetensors_without_embeddings_is_not_taken(cache_folder, caplog):
    import safetensors.numpy

    (cache_folder / "embeddings").mkdir(parents=True)
    safetensors.numpy.save_file({"other": VALUES}, cache_folder / "embeddings" / "k.safetensors")
    assert read_embeddings("k", 2) is None


def test_a_cache_that_cannot_be_written_warns_and_leaves_nothing(cache_folder, monkeypatch, caplog):
    write_embeddings("k", VALUES)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    write_embeddings("k", VALUES + 1)
    assert "could not be cached" in caplog.text
    assert [path.name for path in (cache_folder / "embeddings").iterdir()] == ["k.safetensors"]
    np.testing.assert_array_equal(read_embeddings("k", 2), VALUES)
