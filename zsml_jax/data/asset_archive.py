"""Unpacking a wheel or a source distribution: the listed members only, and never outside the target folder."""

import hashlib
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

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
    for name, stream in _files(archive):
        relative = name.removeprefix(root)
        if not name.startswith(root) or not any(fnmatchcase(relative, pattern) for pattern in members):
            continue
        target = folder / _safe(relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        with stream, open(target, "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        lines.append(f"{sha256(target)}  {relative}\n")
    text = "".join(sorted(lines, key=lambda line: line.split("  ", 1)[1]))
    (folder / SUMS_FILE).write_text(text, encoding="utf-8")
    return text


def sha256(path: Path) -> str:
    """Returns the hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, zipped.open(info)
    else:
        with tarfile.open(archive) as tar:
            for info in tar:
                if info.isfile():
                    stream = tar.extractfile(info)
                    assert stream is not None, info.name
                    yield info.name, stream


def _safe(name: str) -> PurePosixPath:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or ":" in name:
        raise UnsafeArchiveError(f"the archive holds a member named {name!r}, which leads out of the folder")
    return parts
