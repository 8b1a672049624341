"""Texts as random-access sources of documents: files, JSON lines, TFDS splits, or any list of strings."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zsml_jax.data import tfds_source


class TextFiles:
    r"""Text files; each is a document, or several where a separator is given.

    Args:
      paths: files, or folders whose ``*.txt`` are meant, in the order of their names.
      separator: text between two documents of a file, such as ``"\n\n"``; it is in neither.

    Raises:
      ValueError: if a path is not there, or nothing is found.
    """

    def __init__(self, paths: str | os.PathLike | Sequence[str | os.PathLike], *, separator: str | None = None):
        if separator == "":
            raise ValueError("separator must not be empty")
        self._documents: list[str] = []
        for path in _files(paths, "*.txt"):
            text = path.read_text(encoding="utf-8")
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


def _files(paths: str | os.PathLike | Sequence[str | os.PathLike], pattern: str) -> list[Path]:
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    files: list[Path] = []
    for path in map(Path, given):
        if not path.exists():
            raise ValueError(f"paths must exist; {path} does not")
        files += sorted(path.glob(pattern)) if path.is_dir() else [path]
    return files
