"""A run's folder, ``runs/<experiment>/<preset>/<id>/``: all a run leaves behind, and all it needs to go on."""

import datetime
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from jax.experimental import multihost_utils

from zsml_jax.report.document import Document
from zsml_jax.report.records import dumps, jsonable, read_lines, write_atomic
from zsml_jax.report.writers import JsonlWriter, Writer


class RunFolder:
    """The folder of one run.

    ``config.json`` holds the resolved config and ``command.txt`` the command, ``metrics.jsonl`` a line per call of
    :meth:`log`, ``results/`` the finished parts (:meth:`cached`), ``checkpoints/`` what the experiment saves there,
    and ``report.md`` the report with its PNG plots. In a run of several processes all of them share the folder and
    the lead process writes.

    Make one with :meth:`create`, :meth:`resume` or :meth:`open`.

    Attributes:
      path: the folder.
      experiment: the experiment's name.
      preset: the preset's name.
      config: the resolved config as JSON values.
    """

    def __init__(self, path: Path, experiment: str, preset: str, config: Mapping[str, Any]):
        self.path = path
        self.experiment = experiment
        self.preset = preset
        self.config = config
        self._start = time.monotonic()
        self._writers: list[Writer] = [JsonlWriter(path / "metrics.jsonl")] if _is_lead() else []

    @classmethod
    def create(cls, root: str | os.PathLike, experiment: str, preset: str, config: Any) -> "RunFolder":
        """Makes the folder of a new run; ids sort by time.

        Args:
          root: the folder of all runs.
          experiment: the experiment's name.
          preset: the preset's name.
          config: a dataclass or a mapping that JSON can hold.

        Raises:
          ValueError: if the folder is in a bucket; only checkpoints may be.
        """
        parent = _local(root) / experiment / preset
        name = ""
        if _is_lead():
            parent.mkdir(parents=True, exist_ok=True)
            name = _make_free_folder(parent)
            write_atomic(parent / name / "command.txt", _command() + "\n")
            write_atomic(parent / name / "config.json", dumps(config, indent=2) + "\n")
        return cls(parent / _from_lead(name), experiment, preset, jsonable(config))

    @classmethod
    def resume(cls, root: str | os.PathLike, experiment: str, preset: str, config: Any) -> "RunFolder":
        """Goes on in the newest folder of this experiment and preset.

        Raises:
          FileNotFoundError: if there is none.
          ValueError: if it was run with another config; it names the fields that differ. Or as :meth:`create`.
        """
        parent = _local(root) / experiment / preset
        ids = sorted(path.parent.name for path in parent.glob("*/config.json"))
        if not ids:
            raise FileNotFoundError(f"there is no run to resume in {parent}")
        folder = cls.open(parent / ids[-1])
        if differences := _differences(folder.config, json.loads(dumps(config))):
            raise ValueError(
                f"cannot resume {folder.path} with another config; start a new run, or give it the saved values:\n  "
                + "\n  ".join(differences)
            )
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunFolder":
        """Opens the folder of an earlier run.

        Raises:
          FileNotFoundError: if ``path`` is not the folder of a run.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is not the folder of a run: it has no config.json")
        experiment, preset = path.absolute().parts[-3:-1]
        return cls(path, experiment, preset, json.loads((path / "config.json").read_text()))

    @property
    def checkpoints(self) -> Path:
        """Where the run's Orbax checkpoints go: ``checkpoint.save(folder.checkpoints / "otter", fitted)``."""
        return self.path / "checkpoints"

    def add_writer(self, writer: Writer) -> None:
        """Sends the metrics of :meth:`log` to one more place; on processes other than the lead nothing happens."""
        if _is_lead():
            self._writers.append(writer)

    def log(self, step: int | None = None, **metrics: Any) -> None:
        """Writes metrics, in ``metrics.jsonl`` as one line."""
        for writer in self._writers:
            writer.write(step, metrics)

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the lines of ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        return read_lines(path) if path.exists() else []

    def cached(self, key: str, compute: Callable[[], Any]) -> Any:
        """Returns a part's result: computed once, then read from the folder, also after the run was killed.

        Args:
          key: names the part, such as ``"bbc_news/seed 3"``; it must say all that the result depends on beyond the
            run's config.
          compute: returns what JSON can hold. Arrays come back as lists and named tuples as dicts, in the first
            run as in a resumed one.
        """
        path = self._result(key)
        if not _from_lead(path.exists()):
            # Every process computes, since the part may hold collectives.
            text = dumps({"key": key, "result": compute()})
            if not _is_lead():
                return json.loads(text)["result"]
            write_atomic(path, text)
        return json.loads(path.read_text())["result"]

    def done(self, key: str) -> bool:
        """Whether :meth:`cached` has the part of this name."""
        return _from_lead(self._result(key).exists())

    def document(self, title: str) -> Document:
        """Starts the run's ``report.md``, which will end in the command, the environment and the config."""
        command = self.path / "command.txt"
        return Document(
            self.path / "report.md",
            title,
            command=command.read_text().strip() if command.exists() else "",
            config=self.config,
            start=self._start,
        )

    def discard(self) -> None:
        """Closes the folder, and removes it if nothing has been computed: an experiment has refused its config."""
        self.close()
        if _is_lead() and {path.name for path in self.path.iterdir()} <= {"config.json", "command.txt"}:
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Flushes and closes the writers."""
        for writer in self._writers:
            writer.close()

    def _result(self, key: str) -> Path:
        if not key:
            raise ValueError("key must name the part, got an empty string")
        return self.path / "results" / f"{quote(key, safe=' ,=+()')}.json"


def _local(root: str | os.PathLike) -> Path:
    # A Path has made one slash of the two.
    if re.match(r"\w{2,}:/", os.fspath(root)):
        raise ValueError(
            f"root must be a folder that this machine sees, got {os.fspath(root)}; only checkpoints may be in a bucket"
        )
    return Path(root)


def _is_lead() -> bool:
    return jax.process_index() == 0


def _from_lead(value: Any) -> Any:
    """Returns the lead process's value on every process."""
    if jax.process_count() == 1:
        return value
    text = np.zeros(256, np.uint8)
    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
    text[: len(encoded)] = encoded
    return json.loads(bytes(multihost_utils.broadcast_one_to_all(text)).rstrip(b"\0"))


def _make_free_folder(parent: Path) -> str:
    now = datetime.datetime.now(datetime.UTC)
    for later in itertools.count():
        name = (now + datetime.timedelta(milliseconds=later)).strftime("%Y%m%d-%H%M%S-%f")[:-3]
        try:
            (parent / name).mkdir()
        except FileExistsError:
            continue
        return name
    raise AssertionError("count() ends")


def _command() -> str:
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = ["python", "-m", module.name.removesuffix(".__main__")] if module else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def _differences(saved: Any, given: Any, name: str = "") -> list[str]:
    if isinstance(saved, dict) and isinstance(given, dict):
        fields = [*saved, *(field for field in given if field not in saved)]
        missing = "(absent)"
        return [
            line
            for field in fields
            for line in _differences(saved.get(field, missing), given.get(field, missing), f"{name}.{field}".strip("."))
        ]
    # NaN is not equal to itself, but its text is.
    return [] if json.dumps(saved) == json.dumps(given) else [f"{name}: saved {saved!r}, given {given!r}"]
