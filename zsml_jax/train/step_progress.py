"""A run's progress: a bar on a terminal, one line a report otherwise, on the lead process only."""

import datetime
import sys
import time
from collections.abc import Mapping

import jax
import rich.console
import rich.progress


class StepProgress:
    """Shows how far a run is, its newest metrics and how long it will still take.

    Args:
      start: steps done before.
      steps: steps in all.
      shown: whether to show anything.
      console: where to print; standard error by default.
    """

    def __init__(self, start: int, steps: int, *, shown: bool = True, console: rich.console.Console | None = None):
        self._console = console or rich.console.Console(file=sys.stderr)
        self._start, self._steps, self._began = start, steps, time.monotonic()
        self._bar: rich.progress.Progress | None = None
        self._is_shown = shown and jax.process_index() == 0

    def __enter__(self) -> "StepProgress":
        if self._is_shown and self._console.is_terminal:
            columns = (
                rich.progress.TextColumn("training"),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.description}"),
            )
            self._bar = rich.progress.Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._bar.add_task("", total=self._steps, completed=self._start)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=step)

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows metrics: behind the bar, or as a line with the time that is left."""
        if not self._is_shown:
            return
        shown = ", ".join(f"{name} {value:,.4g}" for name, value in metrics.items())
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=shown)
            return
        self._console.print(
            f"step {step}/{self._steps}, {shown}, {self.time_left(step)} left",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )

    def time_left(self, step: int) -> str:
        """Returns the time that the remaining steps take at the pace so far."""
        done = max(step - self._start, 1)
        seconds = (time.monotonic() - self._began) / done * (self._steps - step)
        return str(datetime.timedelta(seconds=round(seconds)))
