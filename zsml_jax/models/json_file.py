"""The JSON files of a model's folder."""

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """Returns the contents of a JSON file.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: if it is not JSON.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_optional_json(path: Path) -> dict[str, Any]:
    """Returns the contents of a JSON file, or an empty dict if it is not there."""
    return read_json(path) if path.is_file() else {}
