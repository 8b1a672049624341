"""Texts as random-access sources of documents: files, JSON lines, TFDS splits, or any list of strings."""

import glob
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsml_jax.data import tfds_source


class TextFiles:
    r"""Text files; each is a document, or several where a separator is given.

    Args:
      paths: files, patterns such as ``"books/*.md"``, or folders whose ``*.txt`` and ``*.txt.gz`` are meant, in the
        order of their names. Files that end in ``.gz`` are unpacked as they are read.
      separator: text between two documents of a file, such as ``"\n\n"``; it is in neither.

    Raises:
      ValueError: if a path is not there, a file is no UTF-8 text, or nothing is found.
    """

    def __init__(self, paths: str | os.PathLike | Sequence[str | os.PathLike], *, separator: str | None = None):
        if separator == "":
            raise ValueError("separator must not be empty")
        self._documents: list[str] = []
        for path in _files(paths, "*.txt", "*.txt.gz"):
            text = _read(path)
            self._documents += [text] if separator is None else text.split(separator)
        self._documents = [document for document in self._documents if document]
        if not self._documents:
            raise ValueError(f"paths must hold text, {paths} hold none")

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index: int) -> str:
        return self._documents[index]


class JsonLines:
    """One field of JSON lines; lines are found by their place in the file and read when asked for.

    Args:
      paths: files, or folders whose ``*.jsonl`` are meant, in the order of their names.
      field: the field that holds the text.

    Raises:
      ValueError: if a path is not there, or no line is found; later, if a line is no object with that text field.
    """

    def __init__(self, paths: str | os.PathLike | Sequence[str | os.PathLike], *, field: str = "text"):
        self._field = field
        self._places: list[tuple[Path, int, int]] = []
        for path in _files(paths, "*.jsonl"):
            with open(path, "rb") as file:
                start = 0
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        self._places.append((path, start, number))
                    start += len(line)
        if not self._places:
            raise ValueError(f"paths must hold JSON lines, {paths} hold none")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> str:
        path, start, number = self._places[index]
        with open(path, "rb") as file:
            file.seek(start)
            line = file.readline()
        try:
            text = json.loads(line)[self._field]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, line {number} must be an object with {self._field!r}: {line[:80]!r}") from error
        if not isinstance(text, str):
            raise ValueError(f"{path}, line {number} must have a string in {self._field!r}, has {text!r}")
        return text


class TfdsTexts:
    """One text feature of a TFDS split.

    Args:
      name: as :func:`zsml_jax.data.tfds_source.open_source` takes it.
      split: a TFDS split string.
      field: the feature that holds the text.
      data_dir: where the data sets lie.

    Raises:
      ValueError: if there is no such split, or the feature is not text.
    """

    def __init__(self, name: str, *, split: str, field: str = "text", data_dir: str | Path | None = None):
        self._source: Any = tfds_source.open_source(name, split=split, data_dir=data_dir)
        self._field = field
        first = self._source[0]
        if not isinstance(first.get(field), str | bytes):
            texts = [key for key, value in first.items() if isinstance(value, str | bytes)]
            raise ValueError(f"field must be a text feature of {name}, one of {texts}; got {field!r}")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> str:
        text = self._source[index][self._field]
        return text.decode("utf-8") if isinstance(text, bytes) else text


def passages(text: str, longest: int) -> list[str]:
    r"""Cuts a text into passages that are the text again when they are joined.

    >>> passages("One. Two.\n\nThree is longer. Four.", 20)
    ['One. Two.\n\n', 'Three is longer. ', 'Four.']

    Args:
      text: the text.
      longest: the most characters of a passage. Each is as long as it can be and end at a blank line; else, if that
        would be less than half of it, at the end of a line, of a sentence or of a word, or where it must.

    Raises:
      ValueError: if ``longest`` is not positive.
    """
    if longest < 1:
        raise ValueError(f"longest must be at least 1, got {longest}")
    found, start = [], 0
    while len(text) - start > longest:
        end = start + longest
        for mark in ("\n\n", "\n", ". ", " "):
            place = text.rfind(mark, start, end)
            if place + len(mark) - start > longest // 2:
                end = place + len(mark)
                break
        found.append(text[start:end])
        start = end
    return [*found, text[start:]] if start < len(text) else found


def _files(paths: str | os.PathLike | Sequence[str | os.PathLike], *patterns: str) -> list[Path]:
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    files: list[Path] = []
    for path in given:
        found = [Path(path)] if os.path.exists(path) else sorted(map(Path, glob.glob(os.fspath(path))))
        if not found:
            raise ValueError(f"paths must exist; {path} does not")
        for each in found:
            files += sorted(file for p in patterns for file in each.glob(p)) if each.is_dir() else [each]
    return files


def _read(path: Path) -> str:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return file.read()
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path} must be UTF-8 text, packed if its name ends in .gz: {error}") from error
