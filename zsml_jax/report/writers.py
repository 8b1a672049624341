"""Where metrics go: JSON lines always; TensorBoard and Weights & Biases by the ``logging`` extra."""

import importlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from zsml_jax.report.records import append_line, jsonable


@runtime_checkable
class Writer(Protocol):
    """Takes metrics, one call a step."""

    def write(self, step: int | None, metrics: Mapping[str, Any]) -> None:
        """Writes the metrics of a step, or of the run as a whole where ``step`` is ``None``."""

    def close(self) -> None:
        """Writes what is pending."""


class JsonlWriter:
    """Appends each call to a file of JSON lines, with the wall-clock ``time`` in seconds since the epoch."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def write(self, step: int | None, metrics: Mapping[str, Any]) -> None:
        """Appends one line.

        Raises:
          ValueError: if a metric is called ``step`` or ``time``.
        """
        if taken := {"step", "time"} & set(metrics):
            raise ValueError(f"metrics must not be called {sorted(taken)}: the line has its own")
        head = {} if step is None else {"step": step}
        append_line(self.path, {**head, "time": round(time.time(), 3), **metrics})

    def close(self) -> None:
        """Does nothing: every line was written as it came."""


class TensorBoardWriter:
    """Writes numbers as scalars of a TensorBoard event file, by tensorboardX."""

    def __init__(self, folder: str | os.PathLike):
        self._writer = _require("tensorboardX").SummaryWriter(os.fspath(folder))

    def write(self, step: int | None, metrics: Mapping[str, Any]) -> None:
        """Writes the numbers among the metrics; nests are flattened with slashes."""
        for name, value in _scalars(metrics):
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class WandbWriter:
    """Writes to a Weights & Biases run; ``settings`` go to ``wandb.init``."""

    def __init__(self, **settings: Any):
        self._run = _require("wandb").init(**settings)

    def write(self, step: int | None, metrics: Mapping[str, Any]) -> None:
        """Logs the metrics."""
        self._run.log(jsonable(metrics), step=step)

    def close(self) -> None:
        """Finishes the run."""
        self._run.finish()


def _require(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{package} is not installed; it comes with the logging extra: pip install 'zsml_jax[logging]'"
        ) from error


def _scalars(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in jsonable(metrics).items():
        if isinstance(value, dict):
            found += _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float):
            found.append((f"{prefix}{name}", float(value)))
    return found
