"""Files that are whole or absent: atomic writes, JSON of any config, and append-only JSON lines."""

import dataclasses
import enum
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def jsonable(value: Any) -> Any:
    """Returns a config, a metric or a nest of them as JSON values.

    Dataclasses and named tuples become objects, other sequences and small arrays become lists, rank-0 arrays become
    numbers, enums their names and paths strings.

    Raises:
      ValueError: for a value that JSON cannot hold; it names the type.
    """
    match value:
        case enum.Enum():
            return value.name
        case None | bool() | int() | float() | str() if not isinstance(value, np.generic):
            return value
        case os.PathLike():
            return os.fspath(value)
        case type():
            return f"{value.__module__}.{value.__qualname__}"
        case Mapping():
            return {str(key): jsonable(item) for key, item in value.items()}
        case tuple() if hasattr(value, "_asdict"):
            return jsonable(value._asdict())
        case list() | tuple():
            return [jsonable(item) for item in value]
        case set() | frozenset():
            return sorted((jsonable(item) for item in value), key=repr)
    if dataclasses.is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        return jsonable(np.asarray(value).tolist())
    raise ValueError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be written as JSON: {value!r}")


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Returns the JSON text of :func:`jsonable`; NaN and infinities keep Python's spelling."""
    return json.dumps(jsonable(value), indent=indent, ensure_ascii=False)


def write_atomic(path: str | os.PathLike, data: str | bytes) -> None:
    """Writes a file under a temporary name, flushes it to the disk and renames it: readers see the old or the new.

    Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a report is as readable as the folder it lies in.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def append_line(path: str | os.PathLike, record: Mapping[str, Any]) -> None:
    """Appends one JSON line; a torn line left by a killed writer is closed first, so that it spoils only itself."""
    line = dumps(record).encode() + b"\n"
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                line = b"\n" + line
        file.write(line)


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads JSON lines; a line that a killed writer left half-written is skipped.

    Raises:
      ValueError: if a complete line is not a JSON object, so that a damaged file is not read as a short one. A
        line is complete when it ends in a closing brace.
    """
    records = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            text = line.strip()
            try:
                record = json.loads(text)
            except json.JSONDecodeError as error:
                if text and text.startswith("{") and text.endswith("}"):
                    raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
                continue
            if not isinstance(record, dict):
                raise ValueError(f"{path}, line {number} must be a JSON object, got {text[:80]!r}")
            records.append(record)
    return records


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
