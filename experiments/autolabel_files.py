"""Files of a labelling job: points and human labels in, questions and auto-labels out. A label once read is kept."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zsml_jax.report.records import write_atomic

_RIGHT = {"yes": True, "y": True, "true": True, "1": True, "no": False, "n": False, "false": False, "0": False}


class Points(NamedTuple):
    """What is to be labelled: an id for each point, and an embedding or a text."""

    ids: tuple[str, ...]
    features: np.ndarray | None
    texts: tuple[str, ...] | None

    def digests(self) -> dict[str, str]:
        """Returns SHA-256 digests of the ids and of the features, as float32, or the texts; all in their order."""
        name = "texts" if self.features is None else "features"
        content = _words(self.texts or ()) if self.features is None else self.features.astype(np.float32).tobytes()
        return {"ids": hashlib.sha256(_words(self.ids)).hexdigest(), name: hashlib.sha256(content).hexdigest()}


def read_points(features: Path | None, texts: Path | None, ids: Path | None) -> Points:
    """Reads embeddings (``.npy``, with ids one a line or numbered) or texts (CSV with the columns id and text).

    Raises:
      ValueError: if not exactly one of both is given, a file cannot be read as what it should be, ids repeat, are empty
        or do not fit, or a feature is not finite.
      FileNotFoundError: if a file is not there.
    """
    if (features is None) == (texts is None):
        raise ValueError("give either --features FILE.npy or --texts FILE.csv, and not both")
    if texts is not None and ids is not None:
        raise ValueError("--ids goes with --features; --texts has a column of ids")
    if texts is not None:
        rows = _rows(texts, ("id", "text"))
        points = Points(tuple(row["id"] for row in rows), None, tuple(row["text"] for row in rows))
    else:
        x = read_matrix(features)
        names = [str(i) for i in range(len(x))] if ids is None else [name.strip() for name in _text(ids).split("\n")]
        names = names[: len(names) - (names[-1] == "")]
        if len(names) != len(x):
            raise ValueError(f"{ids} must have one id for each of the {len(x)} rows of {features}, got {len(names)}")
        points = Points(tuple(names), x, None)
    where = texts or ids or features
    if strange := [name for name in points.ids if len(name.splitlines()) != 1]:
        raise ValueError(f"{where}: {len(strange)} ids are empty or have a line break, such as {strange[0]!r}")
    _check_unique(points.ids, where)
    return points


def read_matrix(path: Path | None) -> np.ndarray:
    """Reads a ``.npy`` file of finite numbers, ``(n, d)``, in the dtype that it has.

    Raises:
      ValueError: if it holds something else, or a number that is not finite as float32.
      FileNotFoundError: if the file is not there.
    """
    try:
        # Not np.load, which also takes archives and pickles, and fails on each in its own way.
        with _there(path).open("rb") as file:
            x = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} must be a .npy file of numbers: {str(error).splitlines()[0]}") from error
    if x.ndim != 2 or x.dtype.kind not in "fiu" or 0 in x.shape:
        raise ValueError(f"{path} must hold numbers of shape (n, d), got {x.dtype} of shape {x.shape}")
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype(np.float32)).all(axis=1)
    if bad.any():
        raise ValueError(f"{path} must be finite as float32; {bad.sum()} rows are not, the first is row {bad.argmax()}")
    return x


def read_labels(path: Path, ids: Collection[str], classes: Sequence[str]) -> dict[str, str]:
    """Reads human labels, a CSV with the columns id and label; rows with an empty label are not done yet.

    In a file that the program wrote, with a column auto_label, rows whose label is that one are not a human's.

    Raises:
      ValueError: if the file is malformed, an id repeats or is no point, a label is not among the classes (all bad ones
        are counted), or automatic labels cannot be told from a human's.
      FileNotFoundError: if the file is not there.
    """
    rows = [row for row in _rows(path, ("id", "label")) if row["label"] not in ("", row.get("auto_label"))]
    if any(row.get("source") == "auto" and "auto_label" not in row for row in rows):
        raise ValueError(
            f"{path} has labels of source auto; without its column auto_label no human can be told from it"
        )
    _check_known([row["id"] for row in rows], ids, path)
    if wrong := [row for row in rows if row["label"] not in classes]:
        raise ValueError(
            f"{path}: {len(wrong)} labels are not among the classes {', '.join(classes)}; the first is "
            f"{wrong[0]['label']!r} of {wrong[0]['id']!r}"
        )
    return {row["id"]: row["label"] for row in rows}


def join(labels: Mapping[Path, Mapping[str, str]]) -> dict[str, str]:
    """Returns the labels of several files as one.

    Raises:
      ValueError: if two of them label a point differently.
    """
    both: dict[str, str] = {}
    said: dict[str, Path] = {}
    for path, new in labels.items():
        for name, label in new.items():
            if both.setdefault(name, label) != label:
                raise ValueError(f"{said[name]} says {both[name]!r} of {name!r}, and {path} {label!r}; correct one")
            said.setdefault(name, path)
    return both


def check_unchanged(path: Path, old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Refuses labels that contradict those kept before, which have been worked with.

    Raises:
      ValueError: if a label differs.
    """
    if changed := [name for name in new if old.get(name, new[name]) != new[name]]:
        name = changed[0]
        raise ValueError(
            f"{len(changed)} labels differ from those given before, such as {new[name]!r} for {name!r}, which was "
            f"{old[name]!r}. Begin a new --out folder to change labels; {path} keeps the old ones."
        )


def read_verdicts(path: Path, ids: Collection[str]) -> dict[str, bool]:
    """Reads which auto-labels a human found right, a CSV with the columns id and right (yes or no; empty is not done).

    Raises:
      ValueError: if the file is malformed, an id repeats or is no point, or an answer is neither yes nor no.
      FileNotFoundError: if the file is not there.
    """
    rows = [row for row in _rows(path, ("id", "right")) if row["right"] != ""]
    _check_known([row["id"] for row in rows], ids, path)
    if wrong := [row for row in rows if row["right"].lower() not in _RIGHT]:
        raise ValueError(f"{path}: right must be yes or no, got {wrong[0]['right']!r} for {wrong[0]['id']!r}")
    return {row["id"]: _RIGHT[row["right"].lower()] for row in rows}


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV as a whole: a reader sees the old file or the new one."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_atomic(path, out.getvalue())


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """All columns of a CSV that has these, without blanks at the ends; a line without any content is skipped."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if missing := [name for name in columns if name not in header]:
            raise ValueError(f"{path} must have a first line with {', '.join(columns)}; it lacks {', '.join(missing)}")
        if repeated := [name for name, count in Counter(header).items() if name and count > 1]:
            raise ValueError(f"{path} must have each column once, and has more than one {repeated[0]}")
        rows = []
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if len(cells) != len(header):
                raise ValueError(
                    f"{path}, line {reader.line_num}: as many fields as in the first line, {len(header)}, are needed, "
                    f"got {len(cells)}"
                )
            rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def _text(path: Path) -> str:
    try:
        return _there(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be text in UTF-8: {error}") from error


def _there(path: Path | None) -> Path:
    if path is None or not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


def _words(words: Sequence[str]) -> bytes:
    return json.dumps(list(words)).encode()


def _check_known(names: Sequence[str], ids: Collection[str], path: Path) -> None:
    _check_unique(names, path)
    known = set(ids)
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"{path}: {len(strange)} ids are no points, such as {strange[0]!r}")


def _check_unique(ids: Sequence[str], path: Path | None) -> None:
    if repeated := [name for name, count in Counter(ids).items() if count > 1]:
        raise ValueError(f"{path}: {len(repeated)} ids are there more than once, such as {repeated[0]!r}")
