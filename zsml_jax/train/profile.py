"""A trace of a few steps, for TensorBoard or Perfetto."""

import jax

from zsml_jax.report import RunFolder
from zsml_jax.typing import PyTree


class ProfileWindow:
    """Traces from the first to the last step of a window into ``profile/`` of a run's folder.

    Args:
      window: first and last step, counted from 1; None traces nothing.
      folder: the run's folder.

    Raises:
      ValueError: if the window is empty, or there is no folder.
    """

    def __init__(self, window: tuple[int, int] | None, folder: RunFolder | None):
        if window is not None and not 1 <= window[0] <= window[1]:
            raise ValueError(f"profile must be a first and a last step, counted from 1, got {window}")
        if window is not None and folder is None:
            raise ValueError(f"profile must have a folder to write to, got {window} and folder None")
        self._window, self._folder, self._is_tracing = window, folder, False

    def before(self, step: int) -> None:
        """Starts the trace if the step is the window's first, or in it after a resume."""
        if self._window and self._folder and self._window[0] <= step <= self._window[1] and not self._is_tracing:
            jax.profiler.start_trace(self._folder.path / "profile")
            self._is_tracing = True

    def after(self, step: int, state: PyTree) -> None:
        """Ends the trace after the window's last step, when its arrays are ready."""
        if self._is_tracing and self._window and step >= self._window[1]:
            jax.block_until_ready(state)
            self._stop()

    def __enter__(self) -> "ProfileWindow":
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_tracing:
            self._stop()

    def _stop(self) -> None:
        self._is_tracing = False
        jax.profiler.stop_trace()
