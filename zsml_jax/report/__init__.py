"""Run folders, metrics, tables, figures: what is left when a run is over.

Start with :class:`RunFolder`, which an experiment gets from the runner. It logs metrics, remembers finished parts and
starts a :class:`Document`, the run's ``report.md``; :class:`Table` and the pure functions of :mod:`.plot` fill it.
:func:`progress` shows how far long work is.
"""

from zsml_jax.report.document import Document, environment
from zsml_jax.report.progress_bar import progress
from zsml_jax.report.run import RunFolder
from zsml_jax.report.table import Column, Estimate, Table
from zsml_jax.report.writers import JsonlWriter, TensorBoardWriter, WandbWriter, Writer

__all__ = [
    "Column",
    "Document",
    "Estimate",
    "JsonlWriter",
    "RunFolder",
    "Table",
    "TensorBoardWriter",
    "WandbWriter",
    "Writer",
    "environment",
    "progress",
]
