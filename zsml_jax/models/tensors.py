"""Opens the weight files of a folder in the hub's layout: tensors by name, read only when asked for."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors

from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.torch_pickle import read_torch_pickle

_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def open_tensors(folder: Path) -> Mapping[str, LazyTensor]:
    """Opens a folder's weights.

    The first that is there of ``model.safetensors``, ``model.safetensors.index.json`` and its shards,
    ``pytorch_model.bin`` and ``pytorch_model.bin.index.json`` and its shards.

    Args:
      folder: the model's folder.

    Returns:
      All tensors by name.

    Raises:
      FileNotFoundError: if there are no weights, or shards are missing; all of them are named.
      ValueError: if a file is damaged, or is not what its index says.
    """
    for stem, opener in _OPENERS.items():
        if (folder / stem).is_file():
            return opener(folder / stem)
        if (folder / f"{stem}.index.json").is_file():
            return _open_shards(folder / f"{stem}.index.json", opener)
    wanted = " or ".join(f"{stem} or {stem}.index.json" for stem in _OPENERS)
    raise FileNotFoundError(f"{folder} holds no weights: there is no {wanted}")


def open_safetensors(path: Path) -> Mapping[str, LazyTensor]:
    """Opens one safetensors file, and again for each tensor that is read.

    A file that stayed open would keep all pages that were ever read in memory.

    Raises:
      ValueError: if it is damaged or holds a dtype that is not supported.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)
            headers = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file: {error}") from error

    def read(name: str) -> np.ndarray:
        with safetensors.safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    tensors = {}
    for name, (dtype, shape) in headers.items():
        if dtype not in _SAFETENSORS_DTYPES:
            raise ValueError(f"{path}: tensor {name!r} is of dtype {dtype}, which is not supported")
        tensors[name] = LazyTensor(shape, _SAFETENSORS_DTYPES[dtype], functools.partial(read, name))
    return tensors


def _open_shards(index: Path, opener: Callable[[Path], Mapping[str, LazyTensor]]) -> Mapping[str, LazyTensor]:
    try:
        shard_of = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not an index of shards: it must be JSON with a weight_map") from error
    files = sorted(set(shard_of.values()))
    if outside := [file for file in files if Path(file).name != file]:
        raise ValueError(f"{index} names files outside its folder: {outside}")
    if missing := [file for file in files if not (index.parent / file).is_file()]:
        raise FileNotFoundError(f"{index} names shards that are not there: {missing}")
    shards = {file: opener(index.parent / file) for file in files}
    if absent := [name for name, file in shard_of.items() if name not in shards[file]]:
        raise ValueError(f"{index} places tensors in shards that do not hold them: {absent}")
    return {name: shards[file][name] for name, file in shard_of.items()}


_OPENERS = {"model.safetensors": open_safetensors, "pytorch_model.bin": read_torch_pickle}
