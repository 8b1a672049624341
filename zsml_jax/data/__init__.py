"""Data sets and pretrained weights: named, pinned, cached and split the same way everywhere.

Start with :func:`load` for a labelled set in memory, with :func:`batches` for a stream of training batches, with
:func:`token_batches` for those of a language model (its texts from :mod:`.documents`), and with :mod:`.assets` for the
weights and texts that ride inside Python packages. :mod:`.hierarchy` reads class hierarchies, :mod:`.graphs` and
:mod:`.pathways` graphs,
:mod:`.label_shift_sampling` moves a set's label distribution on purpose, and :mod:`.cached_embeddings` reads what an
encoder computed elsewhere. Importing this package is cheap: each of its modules is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zsml_jax.data import (
        assets,
        cached_embeddings,
        documents,
        graphs,
        hierarchy,
        label_shift_sampling,
        pathways,
        pipeline,
        tfds_source,
        token_rows,
        token_store,
    )
    from zsml_jax.data.dataset import Dataset
    from zsml_jax.data.datasets import class_descriptions, dataset_names, load
    from zsml_jax.data.label_shift_sampling import dirichlet_label_distribution, resample
    from zsml_jax.data.pipeline import batches
    from zsml_jax.data.token_pipeline import token_batches
    from zsml_jax.data.token_rows import document_mask

_HOME = {
    "Dataset": "dataset",
    "batches": "pipeline",
    "class_descriptions": "datasets",
    "dataset_names": "datasets",
    "dirichlet_label_distribution": "label_shift_sampling",
    "document_mask": "token_rows",
    "load": "datasets",
    "resample": "label_shift_sampling",
    "token_batches": "token_pipeline",
}
_MODULES = (
    "assets",
    "cached_embeddings",
    "documents",
    "graphs",
    "hierarchy",
    "label_shift_sampling",
    "pathways",
    "pipeline",
    "tfds_source",
    "token_rows",
    "token_store",
)

__all__ = [
    "Dataset",
    "assets",
    "batches",
    "cached_embeddings",
    "class_descriptions",
    "dataset_names",
    "dirichlet_label_distribution",
    "document_mask",
    "documents",
    "graphs",
    "hierarchy",
    "label_shift_sampling",
    "load",
    "pathways",
    "pipeline",
    "resample",
    "tfds_source",
    "token_batches",
    "token_rows",
    "token_store",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
