"""Files of a labelling job: points and human labels in, questions and auto-labels out. A label once read is kept."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsml_jax.report.records import write_atomic


class Points(NamedTuple):
    """What is to be labelled: an id for each point, and an embedding or a text."""

    ids: tuple[str, ...]
    features: np.ndarray | None
    texts: tuple[str, ...] | None


def read_points(features: Path | None, texts: Path | None, ids: Path | None) -> Points:
    """Reads embeddings (``.npy``, with ids one a line or numbered) or texts (CSV with the columns id and text).

    Raises:
      ValueError: if not exactly one of both is given, ids repeat or do not fit, or a feature is not finite.
      FileNotFoundError: if a file is not there.
    """
    if (features is None) == (texts is None):
        raise ValueError("give either --features FILE.npy or --texts FILE.csv, and not both")
    if texts is not None:
        rows = _rows(texts, ("id", "text"))
        points = Points(tuple(row["id"] for row in rows), None, tuple(row["text"] for row in rows))
    else:
        x = np.load(_there(features))
        if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
            raise ValueError(f"{features} must hold numbers of shape (n, d), got {x.dtype} of shape {x.shape}")
        bad = ~np.isfinite(x).all(axis=1)
        if bad.any():
            raise ValueError(f"{features} must be finite; {bad.sum()} rows are not, the first is row {bad.argmax()}")
        names = [str(i) for i in range(len(x))] if ids is None else _there(ids).read_text("utf-8").split("\n")
        names = names[: len(names) - (names[-1] == "")]
        if len(names) != len(x):
            raise ValueError(f"{ids} must have one id for each of the {len(x)} rows of {features}, got {len(names)}")
        points = Points(tuple(names), x.astype(np.float32), None)
    _check_unique(points.ids, texts or ids or features)
    return points


def read_labels(path: Path, ids: Iterable[str], classes: Sequence[str]) -> dict[str, str]:
    """Reads human labels, a CSV with the columns id and label; rows with an empty label are not done yet.

    Raises:
      ValueError: if an id repeats or is no point, or a label is not among the classes; all bad ones are counted.
      FileNotFoundError: if the file is not there.
    """
    rows = [row for row in _rows(path, ("id", "label")) if row["label"] != ""]
    _check_unique([row["id"] for row in rows], path)
    known = set(ids)
    if strange := [row["id"] for row in rows if row["id"] not in known]:
        raise ValueError(f"{path}: {len(strange)} ids are no points, such as {strange[0]!r}")
    if wrong := [row for row in rows if row["label"] not in classes]:
        raise ValueError(
            f"{path}: {len(wrong)} labels are not among the classes {', '.join(classes)}; the first is "
            f"{wrong[0]['label']!r} of {wrong[0]['id']!r}"
        )
    return {row["id"]: row["label"] for row in rows}


def keep(path: Path, new: Mapping[str, str]) -> dict[str, str]:
    """Adds human labels to those kept before, and returns all of them.

    Raises:
      ValueError: if a label differs from the one that was kept: it has been worked with.
    """
    old = {row["id"]: row["label"] for row in _rows(path, ("id", "label"))} if path.is_file() else {}
    if changed := [name for name in new if old.get(name, new[name]) != new[name]]:
        name = changed[0]
        raise ValueError(
            f"{len(changed)} labels differ from those given before, such as {new[name]!r} for {name!r}, which was "
            f"{old[name]!r}. Begin a new --out folder to change labels; {path} keeps the old ones."
        )
    both = {**old, **new}
    write(path, ("id", "label"), both.items())
    return both


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV as a whole: a reader sees the old file or the new one."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_atomic(path, out.getvalue())


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with _there(path).open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} must have a first line with {', '.join(columns)}; it lacks {', '.join(missing)}")
        return [{name: (row[name] or "").strip() for name in columns} for row in reader]


def _there(path: Path | None) -> Path:
    if path is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _check_unique(ids: Sequence[str], path: Path | None) -> None:
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"{path}: {len(repeated)} ids are there more than once, such as {repeated[0]!r}")
