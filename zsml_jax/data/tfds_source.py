"""TFDS data sets that lie on disk as ArrayRecord files, read at random and without TensorFlow.

A directory is found here and opened as it is. Nothing is downloaded or written, as ``tfds.data_source`` would do for a
name that is not there: ``python -m zsml_jax.data.prepare`` does that.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zsml_jax.data.nearest_name import nearest

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_BLOCK = 1000


def open_source(name: str, *, split: str, data_dir: str | Path | None = None) -> Any:
    """Opens a split as a random-access source of example dicts.

    Args:
      name: a TFDS name: ``mnist``, ``squad/v1.1``, ``mnist:3.0.1``.
      split: a TFDS split string, such as ``test`` or ``test[:8000]``; ``all`` is every split there is.
      data_dir: where the data sets lie; by default ``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``.

    Returns:
      A source with ``len``, indexing and ``dataset_info``. It can be pickled, and so be read by worker processes.

    Raises:
      ValueError: if the data set, its version or the split is not there, or is in another file format.
    """
    import tensorflow_datasets as tfds

    folder = directory(name, data_dir)
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    if info.get("fileFormat") != "array_record":
        written = info.get("fileFormat", "tfrecord")
        raise ValueError(
            f"{folder} is written as {written}, which allows no random access; "
            f"`python -m zsml_jax.data.prepare {name}` writes array_record"
        )
    builder: Any = tfds.builder_from_directory(folder)
    try:
        return builder.as_data_source(split)
    except ValueError as error:
        there = ", ".join(f"{key} ({value.num_examples:,})" for key, value in builder.info.splits.items())
        raise ValueError(f"{name!r} in {folder} has no split {split!r}; it has {there}. {error}") from error


def examples(source: Any, *, title: str) -> Iterator[dict[str, Any]]:
    """Yields all examples of a source in order, block by block, and shows the progress of a long one."""
    from zsml_jax.report.progress_bar import progress

    starts = range(0, len(source), _BLOCK)
    for start in progress(starts, title) if len(starts) > 10 else starts:
        yield from source.__getitems__(range(start, min(start + _BLOCK, len(source))))


def is_prepared(name: str, data_dir: str | Path | None = None) -> bool:
    """Returns whether the data set of this name, whatever its config and version, lies under ``data_dir``."""
    return _base_name(name) in prepared(data_dir)


def prepared(data_dir: str | Path | None = None) -> tuple[str, ...]:
    """Returns the names of the data sets that lie under ``data_dir``."""
    root = data_directory(data_dir)
    infos = {*root.glob("*/*/dataset_info.json"), *root.glob("*/*/*/dataset_info.json")}
    return tuple(sorted({info.relative_to(root).parts[0] for info in infos}))


def directory(name: str, data_dir: str | Path | None = None) -> Path:
    """Returns the folder that holds one config and version of a data set, the newest where the name leaves it open.

    Raises:
      ValueError: if it is not there; the message lists what is.
    """
    path, _, version = name.partition(":")
    base, _, config = path.partition("/")
    root = data_directory(data_dir)
    if base not in prepared(data_dir):
        raise ValueError(
            f"there is no TFDS data set {base!r} in {root}. {nearest(base, prepared(data_dir), 'data sets there')} "
            f"`python -m zsml_jax.data.prepare {name}` downloads and writes it."
        )
    folder = root / base / (config or _default_config(root / base))
    versions = {info.parent.name: info.parent for info in folder.glob("*/dataset_info.json")}
    if not versions:
        configs = sorted({info.parent.parent.name for info in (root / base).glob("*/*/dataset_info.json")})
        raise ValueError(f"{base!r} has no config {config!r} in {root}; it has {', '.join(configs) or 'none at all'}")
    if version and version not in versions:
        raise ValueError(f"{path!r} has no version {version!r} in {root}; it has {', '.join(sorted(versions))}")
    return versions[version or max(versions, key=_version_number)]


def data_directory(data_dir: str | Path | None = None) -> Path:
    """Returns ``data_dir``, or TFDS's own default."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _default_config(folder: Path) -> str:
    """The config that TFDS recorded as the default, the only one there is, or "" for a set without configs."""
    if any(folder.glob("*/dataset_info.json")):
        return ""
    configs = sorted({info.parent.parent.name for info in folder.glob("*/*/dataset_info.json")})
    recorded = folder / ".config" / "metadata.json"
    default = json.loads(recorded.read_text())["default_config_name"] if recorded.is_file() else configs[0]
    if default not in configs or (len(configs) > 1 and not recorded.is_file()):
        raise ValueError(f"{folder.name!r} needs a config: {', '.join(f'{folder.name}/{c}' for c in configs)}")
    return default


def _base_name(name: str) -> str:
    return name.partition(":")[0].partition("/")[0]


def _version_number(version: str) -> tuple[int, ...]:
    matched = _VERSION.fullmatch(version)
    return tuple(map(int, matched.groups())) if matched else (-1,)
