"""A report in Markdown: text, tables and figures, then how to get the same again."""

import importlib.metadata
import io
import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from zsml_jax.report.records import dumps, write_atomic
from zsml_jax.report.table import Table

if TYPE_CHECKING:
    import matplotlib.figure

_PACKAGES = ("zsml_jax", "jax", "jaxlib", "flax", "optax", "ott-jax", "orbax-checkpoint", "numpy", "scipy")


class Document:
    """Collects the parts of a report; :meth:`write` puts the file in place as a whole.

    Args:
      path: the Markdown file; figures are saved beside it.
      title: the heading.
      command: what a reader types to get the same.
      config: printed at the end.
      start: ``time.monotonic()`` when the work began; its length is then told.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        title: str,
        *,
        command: str = "",
        config: Mapping[str, Any] | None = None,
        start: float | None = None,
    ):
        self.path = Path(path)
        self._head = [f"# {title}"]
        if command:
            self._head.append(f"```sh\n{command}\n```")
        self._config = config
        self._start = start
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """Adds a heading of the second level."""
        self._parts.append(f"## {text}")

    def text(self, text: str) -> None:
        """Adds a paragraph of Markdown."""
        self._parts.append(text.strip())

    def table(self, table: Table) -> None:
        """Adds a table, and prints it to the terminal on the lead process."""
        self._parts.append(table.to_markdown())
        if jax.process_index() == 0:
            table.print()

    def figure(self, name: str, figure: "matplotlib.figure.Figure", caption: str = "") -> None:
        """Saves a figure as ``<name>.png`` beside the report and shows it there.

        Raises:
          ValueError: if the name is not of letters, digits, ``_`` and ``-``.
        """
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(f"name must be made of letters, digits, _ and -, got {name!r}")
        if jax.process_index() == 0:
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=160)
            write_atomic(self.path.with_name(f"{name}.png"), png.getvalue())
        self._parts.append(f"![{caption or name}]({name}.png)")
        if caption:
            self._parts.append(f"*{caption}*")

    def write(self) -> Path:
        """Writes the file, on the lead process, and returns its path."""
        table = Table(["environment", ""])
        for name, value in environment().items():
            table.add(name, value)
        if self._start is not None:
            table.add("time", f"{time.monotonic() - self._start:.0f} s")
        end = ["## Environment", table.to_markdown()]
        if self._config is not None:
            end += ["## Config", f"```json\n{dumps(self._config, indent=2)}\n```"]
        if jax.process_index() == 0:
            write_atomic(self.path, "\n\n".join([*self._head, *self._parts, *end]) + "\n")
        return self.path


def environment() -> dict[str, str]:
    """Returns what a reader needs to know of the machine: versions, devices, processes."""
    devices = jax.devices()
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "processes": str(jax.process_count()),
        "cpus": str(os.cpu_count()),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **versions,
    }
