"""Embeddings on disk, by the content of everything that they depend on.

One file holds one corpus; nothing refers to the files, so that the folder ``embeddings`` of the cache can be deleted at
any time.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from zsml_jax.data.assets import cache_dir
from zsml_jax.typing import Params

_log = logging.getLogger(__name__)


def corpus_key(params: Params, settings: Iterable[Any], sequences: Iterable[np.ndarray]) -> str:
    """Returns the name of a corpus of token ids under a model.

    Args:
      params: the weights; their paths, dtypes, shapes and values count.
      settings: what else decides the result; its ``repr`` counts.
      sequences: token ids of each text, int32, in order.

    Returns:
      A hex digest.
    """
    digest = hashlib.sha256()
    for path, value in sorted(flax.traverse_util.flatten_dict(params, sep="/").items()):
        array = np.ascontiguousarray(value)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    digest.update(repr(tuple(settings)).encode())
    for sequence in sequences:
        digest.update(len(sequence).to_bytes(8, "little"))
        digest.update(sequence.tobytes())
    return digest.hexdigest()


def read_embeddings(key: str, rows: int) -> np.ndarray | None:
    """Returns cached embeddings, or None if there are none or the file is damaged.

    Args:
      key: from :func:`corpus_key`.
      rows: the number of texts.
    """
    path = _path(key)
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            embeddings, stored = file.get_tensor("embeddings"), (file.metadata() or {}).get("sha256")
    except (safetensors.SafetensorError, OSError) as error:
        _log.warning("cached embeddings %s are damaged and are computed anew: %s", path, error)
        return None
    if len(embeddings) != rows or hashlib.sha256(embeddings.tobytes()).hexdigest() != stored:
        _log.warning("cached embeddings %s are damaged and are computed anew", path)
        return None
    return embeddings


def write_embeddings(key: str, embeddings: np.ndarray) -> None:
    """Writes embeddings to the cache, whole or not at all; a cache that cannot be written is only worth a warning."""
    path = _path(key)
    embeddings = np.ascontiguousarray(embeddings)
    metadata = {"sha256": hashlib.sha256(embeddings.tobytes()).hexdigest()}
    part: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(safetensors.numpy.save({"embeddings": embeddings}, metadata))
        os.replace(part, path)
    except OSError as error:
        _log.warning("embeddings could not be cached in %s: %s", path.parent, error)
        if part is not None:
            with contextlib.suppress(OSError):
                os.unlink(part)


def _path(key: str) -> Path:
    return cache_dir() / "embeddings" / f"{key}.safetensors"
