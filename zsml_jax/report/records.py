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
    """Appends one JSON line; what a killed writer left half-written at the end is taken away first."""
    line = dumps(record).encode() + b"\n"
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.seek(0)
                *whole, tail = file.read().split(b"\n")
                if _parse(tail.decode(errors="replace")) is None:
                    file.truncate(sum(len(part) + 1 for part in whole))
                else:
                    line = b"\n" + line
        file.write(line)


def read_lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Reads JSON lines; a last line that a killed writer left half-written is skipped.

    Raises:
      ValueError: if any other line is not a JSON object.
    """
    *lines, tail = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    records = [_parse(line) for line in lines]
    if None in records:
        number = records.index(None)
        raise ValueError(f"{path}, line {number + 1} must be a JSON object, got {lines[number][:80]!r}")
    last = _parse(tail)
    return [record for record in [*records, last] if record is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
