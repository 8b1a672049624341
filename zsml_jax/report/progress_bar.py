"""Progress of long work: a bar on a terminal, one line in so many steps otherwise, on the lead process only."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import jax
import rich.console
import rich.progress

T = TypeVar("T")


def progress(
    steps: Iterable[T],
    description: str,
    *,
    total: int | None = None,
    every: int | None = None,
    console: rich.console.Console | None = None,
) -> Iterator[T]:
    """Iterates over ``steps`` and shows how far it is.

    Args:
      steps: what is iterated.
      description: what is being done, such as ``"embedding"``.
      total: the number of steps, where ``steps`` has no length.
      every: off a terminal, the number of steps between two lines; by default such that about ten are printed.
      console: where to print; standard error by default.

    Yields:
      The elements of ``steps``.
    """
    if total is None and isinstance(steps, Sized):
        total = len(steps)
    if jax.process_index() != 0:
        yield from steps
        return
    console = console or rich.console.Console(file=sys.stderr)
    if console.is_terminal:
        columns = (
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
        )
        with rich.progress.Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(steps, total=total, description=description)
        return
    every = every or max(1, (total or 1000) // 10)
    start = time.monotonic()
    for done, step in enumerate(steps, start=1):
        yield step
        if done % every == 0 or done == total:
            of = f"/{total}" if total else ""
            console.print(f"{description}: {done}{of}, {time.monotonic() - start:.0f} s", highlight=False, markup=False)
