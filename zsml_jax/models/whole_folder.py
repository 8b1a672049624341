"""Folders that are replaced as a whole: what is in place is never half written."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_replaceable(folder: str | Path, *, marker: str, kind: str) -> None:
    """Refuses to replace what one would not expect to be replaced.

    Args:
      folder: a folder to be written.
      marker: the file that says that a folder holds something of the kind.
      kind: what may be replaced, with its article, for the message.

    Raises:
      FileExistsError: if the folder is there, is not empty and lacks the file.
    """
    target = _absolute(folder)
    if target.exists() and not (target / marker).is_file() and (target.is_file() or any(target.iterdir())):
        raise FileExistsError(f"folder must be new or hold {kind}, and {target} holds no {marker}")


@contextlib.contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which takes the place of ``folder`` once all of it is on disk.

    It lies beside the folder, under a temporary name, and is renamed. If anything fails, what was there stays. To
    replace a folder takes two renames. Who is killed between them, or earlier, finds what was whole in a hidden folder
    ``.<name>-...`` beside it, what was there before as ``old``.

    Args:
      folder: what is made or replaced; see :func:`check_replaceable`.
    """
    target = _absolute(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    fresh, old, in_place = work / "new", work / "old", False
    try:
        fresh.mkdir()
        yield fresh
        _flush(fresh)
        _swap(fresh, target, old)
        in_place = True
    finally:
        if in_place or not old.exists():  # what could not be put back is kept
            shutil.rmtree(work, ignore_errors=True)


def _absolute(folder: str | Path) -> Path:
    return Path(folder).expanduser().absolute()


def _flush(folder: Path) -> None:
    """Waits until the files are on disk, so that a rename that survives a crash names whole ones."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Puts a finished folder in place; the old one comes back if that fails."""
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(fresh, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
