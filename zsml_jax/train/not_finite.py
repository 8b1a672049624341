"""What a run leaves when a loss or a gradient is not finite: the batch that did it."""

import io
import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from zsml_jax.report.records import write_atomic
from zsml_jax.train import parameter_paths
from zsml_jax.train.state import TrainState
from zsml_jax.typing import PyTree


class NotFiniteError(FloatingPointError):
    """Ends a run whose loss or gradient is not finite.

    Attributes:
      step: the step that failed, counted from 1.
      state: the state before it.
      path: the file with its batch, an ``.npz`` whose names are the paths in the batch; None if none was asked for.
    """

    def __init__(self, step: int, metrics: Mapping[str, float], state: TrainState, path: Path | None):
        where = f"its batch is in {path}" if path else "give a folder to have its batch saved"
        super().__init__(
            f"step {step} has the loss {metrics['loss']} and the gradient norm {metrics['gradient_norm']}; {where}"
        )
        self.step, self.state, self.path = step, state, path


def save_batch(folder: str | os.PathLike, step: int, batch: PyTree) -> Path:
    """Saves this process's examples of a batch and returns the file."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
    arrays = dict(zip((path or "batch" for path in parameter_paths.paths(batch)), leaves, strict=True))
    suffix = f"_process_{jax.process_index()}" if jax.process_count() > 1 else ""
    path = Path(folder) / f"not_finite_step_{step}{suffix}.npz"
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyrefly: ignore[bad-argument-type]
    write_atomic(path, file.getvalue())
    return path
