import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from zsml_jax.data import tfds_source


@pytest.fixture
def copied(tiny_tfds, tmp_path):
    """A ``data_dir`` with ``many``, which has two configs, that a test may change."""
    for config in ("plain", "fancy"):
        shutil.copytree(tiny_tfds / "tiny_digits" / "1.0.0", tmp_path / "many" / config / "1.0.0")
    return tmp_path


def test_a_source_gives_the_examples_by_index_in_the_order_of_the_file(tiny_tfds, tiny_images):
    images, labels = tiny_images
    source = tfds_source.open_source("tiny_digits", split="train", data_dir=tiny_tfds)
    assert len(source) == 8
    assert np.array_equal(source[5]["image"], images[5]) and source[5]["label"] == labels[5]
    read = list(tfds_source.examples(source, title="reading"))
    assert np.array_equal([example["image"] for example in read], images[:8])


def test_a_source_survives_pickling_as_workers_need(tiny_tfds):
    source = tfds_source.open_source("tiny_digits", split="test", data_dir=tiny_tfds)
    assert pickle.loads(pickle.dumps(source))[1]["label"] == source[1]["label"]


def test_all_is_every_split_there_is(tiny_tfds, tiny_images):
    source = tfds_source.open_source("tiny_digits", split="all", data_dir=tiny_tfds)
    assert sorted(example["label"] for example in source) == sorted(tiny_images[1])


def test_the_newest_version_is_chosen_by_number_and_another_by_name(tiny_tfds):
    assert tfds_source.directory("tiny_digits", tiny_tfds).name == "1.10.0"
    assert tfds_source.directory("tiny_digits:1.0.0", tiny_tfds).name == "1.0.0"
    with pytest.raises(ValueError, match=r"no version '2\.0\.0' in .*; it has 1\.0\.0, 1\.10\.0"):
        tfds_source.directory("tiny_digits:2.0.0", tiny_tfds)


def test_a_config_is_taken_from_the_name_or_from_the_recorded_default(copied):
    assert tfds_source.directory("many/fancy", copied) == copied / "many" / "fancy" / "1.0.0"
    with pytest.raises(ValueError, match="'many' needs a config: many/fancy, many/plain"):
        tfds_source.directory("many", copied)
    (copied / "many" / ".config").mkdir()
    (copied / "many" / ".config" / "metadata.json").write_text('{"default_config_name": "plain"}')
    assert tfds_source.directory("many:1.0.0", copied) == copied / "many" / "plain" / "1.0.0"
    with pytest.raises(ValueError, match="'many' has no config 'plane' in .*; it has fancy, plain"):
        tfds_source.directory("many/plane", copied)


def test_the_only_config_needs_no_name(copied):
    shutil.rmtree(copied / "many" / "fancy")
    assert tfds_source.directory("many", copied).parent.name == "plain"


def test_a_config_asked_of_a_set_without_any_is_refused(tiny_tfds):
    with pytest.raises(ValueError, match="'tiny_digits' has no config 'x' in .*; it has none at all"):
        tfds_source.directory("tiny_digits/x", tiny_tfds)


def test_a_set_that_is_not_there_names_the_nearest_and_the_command_and_writes_nothing(copied):
    before = sorted(copied.rglob("*"))
    with pytest.raises(ValueError, match=r"no TFDS data set 'mnist' .*sets there are: many.*prepare mnist` downloads"):
        tfds_source.open_source("mnist", split="train", data_dir=copied)
    assert sorted(copied.rglob("*")) == before


def test_another_file_format_is_refused(copied):
    info = copied / "many" / "plain" / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="is written as tfrecord, which allows no random access"):
        tfds_source.open_source("many/plain", split="train", data_dir=copied)


@pytest.mark.parametrize(
    ("name", "split", "size", "shape"),
    [
        ("mnist", "train", 60_000, (28, 28, 1)),
        ("mnist", "test", 10_000, (28, 28, 1)),
        ("fashion_mnist", "test[:80%]", 8_000, (28, 28, 1)),
        ("cifar10", "test[8000:]", 2_000, (32, 32, 3)),
    ],
)
def test_the_real_directories_open(shared_data, name, split, size, shape):
    source = tfds_source.open_source(name, split=split, data_dir=shared_data / "tfds")
    assert len(source) == size and source[size - 1]["image"].shape == shape


def test_squad_of_the_shared_folder_opens_by_its_config(shared_data):
    for name in ("squad", "squad/v1.1"):
        source = tfds_source.open_source(name, split="validation", data_dir=shared_data / "tfds")
        assert len(source) == 10_565 and source[0]["question"].endswith(b"?")


def test_reading_does_not_import_tensorflow(tiny_tfds):
    load = f"len(data.load('tiny_digits', data_dir={str(tiny_tfds)!r}))"
    code = f"import sys; from zsml_jax import data; print({load}, 'tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "12 False\n", result.stderr
