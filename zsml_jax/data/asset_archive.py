"""Unpacking a wheel or a source distribution: the listed members only, and never outside the target folder."""

import contextlib
import functools
import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

#: Written into every unpacked folder, in the format that ``sha256sum -c`` reads.
SUMS_FILE = "SHA256SUMS"


class UnsafeArchiveError(ValueError):
    """A member's name would lead outside the folder that the archive is unpacked into."""


def unpack(archive: Path, folder: Path, *, root: str, members: Sequence[str]) -> str:
    """Unpacks the members of an archive that match, and writes their hashes beside them.

    Args:
      archive: a ``.whl`` (zip) or ``.tar.gz`` file.
      folder: an empty folder to unpack into.
      root: the prefix that is cut from member names, with its closing slash; members elsewhere are left out.
      members: shell patterns over the remaining names; ``*`` also matches a slash.

    Returns:
      The text of ``SHA256SUMS``, one line a file in the order of their names.

    Raises:
      UnsafeArchiveError: if any wanted member's name is absolute or climbs out by ``..``.
    """
    lines = []
    with _files(archive) as files:
        for name, open_member in files:
            relative = name.removeprefix(root)
            if not name.startswith(root) or not any(fnmatchcase(relative, pattern) for pattern in members):
                continue
            target = folder / _safe(relative)
            target.parent.mkdir(parents=True, exist_ok=True)
            with open_member() as stream, open(target, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            lines.append(f"{sha256(target)}  {relative}\n")
    text = "".join(sorted(lines, key=lambda line: line.split("  ", 1)[1]))
    (folder / SUMS_FILE).write_text(text, encoding="utf-8")
    return text


def sha256(path: Path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _files(archive: Path) -> Generator[Iterator[tuple[str, Callable[[], Any]]], None, None]:
    """The names of an archive's regular files, each with a function that opens it; links and devices are left out."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            yield ((i.filename, functools.partial(zipped.open, i)) for i in zipped.infolist() if not i.is_dir())
    else:
        with tarfile.open(archive) as tar:
            yield ((i.name, functools.partial(tar.extractfile, i)) for i in tar if i.isfile())


def _safe(name: str) -> PurePosixPath:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        raise UnsafeArchiveError(f"the archive holds a member named {name!r}, which leads out of the folder")
    return parts
