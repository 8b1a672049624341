"""``python -m zsml_jax.data.prepare NAME``: downloads a TFDS data set and writes it as ArrayRecord.

This is the one step that needs TensorFlow, which the ``prepare`` extra brings; reading what it writes does not. TFDS
writes into a folder of another name and renames it at the end, so that an interrupted run leaves no half data set.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import tyro

from zsml_jax.data import tfds_source


class PrepareError(RuntimeError):
    """A data set could not be downloaded or written."""


def prepare(name: str, *, data_dir: str | Path | None = None) -> Path:
    """Downloads a data set and writes it as ArrayRecord, unless it is there already. TFDS shows the progress.

    Args:
      name: a TFDS name: ``cifar10``, ``squad/v1.1``, ``mnist:3.0.1``.
      data_dir: where to write; by default ``TFDS_DATA_DIR``, or ``~/tensorflow_datasets``.

    Returns:
      The folder that holds the data set.

    Raises:
      PrepareError: if TensorFlow is not installed, TFDS has no such data set, or it cannot be downloaded or written.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise PrepareError(
            "writing a data set needs TensorFlow, which is not installed: pip install 'zsml_jax[prepare]'. "
            "Reading one that is written does not need it."
        )
    import tensorflow_datasets as tfds

    root = tfds_source.data_directory(data_dir)
    try:
        builder = tfds.builder(name, data_dir=root, file_format="array_record")
        builder.download_and_prepare(file_format="array_record")
    except tfds.core.DatasetNotFoundError as error:
        raise PrepareError(f"TFDS has no data set {name!r}") from error
    except (OSError, AssertionError, ValueError) as error:
        raise PrepareError(f"{name!r} could not be written to {root}: {type(error).__name__}: {error}") from error
    return Path(builder.data_path)


def main(args: list[str] | None = None) -> None:
    """Runs the command line; a :class:`PrepareError` ends it with status 1 and its message."""
    try:
        tyro.cli(_prepare, args=args, prog="python -m zsml_jax.data.prepare", description=__doc__)
    except PrepareError as error:
        sys.exit(f"error: {error}")


def _prepare(name: Annotated[str, tyro.conf.Positional], data_dir: Path | None = None) -> None:
    """Downloads and writes a data set, and prints its folder.

    Args:
        name: a TFDS name, such as cifar10, squad/v1.1 or mnist:3.0.1.
        data_dir: where to write; TFDS_DATA_DIR or ~/tensorflow_datasets by default.
    """
    print(prepare(name, data_dir=data_dir))


if __name__ == "__main__":
    main()
