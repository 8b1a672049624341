import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from zsml_jax import data
from zsml_jax.data import prepare, tfds_source


def test_without_tensorflow_the_error_names_the_extra_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None)
    with pytest.raises(prepare.PrepareError, match=r"needs TensorFlow, .*pip install 'zsml_jax\[prepare\]'"):
        prepare.prepare("mnist", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_with_the_message_of_an_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None)
    with pytest.raises(SystemExit, match=r"error: writing a data set needs TensorFlow"):
        prepare.main(["mnist"])


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "zsml_jax.data.prepare", "--help"]
    assert "--data-dir" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_local_builder_is_written_as_array_record_and_read_back(tmp_path):
    pytest.importorskip("tensorflow")
    import tensorflow_datasets as tfds

    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)

    class TinyLocal(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=(2, 2, 1)), "label": tfds.features.ClassLabel(names=["no", "yes"])}
            )
            return self.dataset_info_from_configs(features=features, supervised_keys=("image", "label"))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                yield i, {"image": pixels[i], "label": i % 2}

    folder = prepare.prepare("tiny_local", data_dir=tmp_path)
    assert folder == tfds_source.directory("tiny_local", tmp_path)
    tiny = data.load("tiny_local", split="train", data_dir=tmp_path)
    assert tiny.class_names == ("no", "yes")
    assert sorted(zip(tiny.inputs[:, 0, 0, 0].tolist(), tiny.labels.tolist(), strict=True)) == [(0, 0), (4, 1), (8, 0)]
    assert prepare.prepare("tiny_local", data_dir=tmp_path) == folder
    with pytest.raises(prepare.PrepareError, match="TFDS has no data set 'no_such_set'"):
        prepare.prepare("no_such_set", data_dir=tmp_path)
