import json

import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models.sentence import SentenceConfig, pool, read_sentence_config, write_sentence_config

HIDDEN = np.array([[[1.0, -2.0], [3.0, -6.0], [9.0, 9.0]], [[5.0, 12.0], [7.0, 7.0], [7.0, 7.0]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 0, 0]], np.int32)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("cls", [[1, -2], [5, 12]]),
        ("mean", [[2, -4], [5, 12]]),
        ("max", [[3, -2], [5, 12]]),
        ("mean_sqrt_len_tokens", [[4 / 2**0.5, -8 / 2**0.5], [5, 12]]),
    ],
)
def test_each_pooling_sees_the_tokens_and_not_the_padding(pooling, expected):
    np.testing.assert_allclose(pool(HIDDEN, MASK, SentenceConfig((pooling,))), expected, rtol=1e-6)


def test_several_poolings_are_concatenated_and_normalised_together():
    vectors = pool(HIDDEN, MASK, SentenceConfig(("cls", "mean"), normalize=True))
    np.testing.assert_allclose(vectors[1], np.array([5, 12, 5, 12]) / np.sqrt(2 * 169), rtol=1e-6)


def test_a_text_without_tokens_gives_zeros_and_no_nan():
    config = SentenceConfig(("max", "mean", "mean_sqrt_len_tokens"), normalize=True)
    np.testing.assert_array_equal(pool(HIDDEN, np.zeros_like(MASK), config), np.zeros((2, 6)))


def test_means_of_bfloat16_states_are_taken_in_float32():
    ones = jnp.ones((1, 1000, 1), jnp.bfloat16)  # a bfloat16 sum would stop at 256
    vector = pool(ones, np.ones((1, 1000), np.int32), SentenceConfig())
    assert vector.dtype == jnp.float32
    np.testing.assert_array_equal(vector, [[1.0]])


def write_package(folder, kinds, pooling=None, limits=None, limits_name="sentence_bert_config.json"):
    paths = ["", "1_Pooling", "2_Normalize", "3_More"]
    steps = [{"path": path, "type": f"any.models.{kind}"} for path, kind in zip(paths, kinds, strict=False)]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_mean_tokens": True}))
    if limits is not None:
        (folder / limits_name).write_text(json.dumps(limits))


def test_the_real_package_says_mean_normalised_256_tokens(minilm):
    assert minilm.sentence == SentenceConfig(("mean",), normalize=True, max_length=256, lowercase=False)


def test_a_folder_without_modules_pools_the_mean(tmp_path):
    assert read_sentence_config(tmp_path) == (SentenceConfig(), tmp_path)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "word": 4}, ("cls", "mean")),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len_tokens",)),
        ({"pooling_mode": "max"}, ("max",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
    ],
)
def test_old_and_new_pooling_files_are_understood(pooling, expected, tmp_path):
    write_package(tmp_path, ["Transformer", "Pooling"], pooling, {"max_seq_length": 9, "do_lower_case": True})
    config, folder = read_sentence_config(tmp_path)
    assert config == SentenceConfig(expected, normalize=False, max_length=9, lowercase=True)
    assert folder == tmp_path


def test_the_limits_of_older_packages_are_found_under_their_model_s_name(tmp_path):
    name = "sentence_roberta_config.json"
    write_package(tmp_path, ["Transformer", "Pooling", "Normalize"], limits={"max_seq_length": 7}, limits_name=name)
    assert read_sentence_config(tmp_path)[0] == SentenceConfig(("mean",), normalize=True, max_length=7)


@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode_mean_tokens": False},
    ],
)
def test_poolings_that_are_not_supported_are_named(pooling, tmp_path):
    write_package(tmp_path, ["Transformer", "Pooling"], pooling)
    with pytest.raises(ValueError, match=r"asks for the poolings \[.*\]; supported are \['cls', 'max', 'mean'"):
        read_sentence_config(tmp_path)


@pytest.mark.parametrize(
    "kinds", [["Transformer", "Pooling", "Dense"], ["StaticEmbedding"], ["Pooling", "Transformer"]]
)
def test_steps_that_are_not_supported_are_named(kinds, tmp_path):
    write_package(tmp_path, kinds)
    with pytest.raises(ValueError, match=f"lists the steps .*{kinds[-1]}.*supported: Transformer, Pooling"):
        read_sentence_config(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        SentenceConfig(("mean",), normalize=True, max_length=12),
        SentenceConfig(("cls", "max"), lowercase=True),
        SentenceConfig(("mean", "cls")),
    ],
)
def test_what_is_written_reads_back_as_the_same_pooling(config, tmp_path):
    write_sentence_config(config, tmp_path, 16)
    assert read_sentence_config(tmp_path) == (config, tmp_path)
