"""Reads ``pytorch_model.bin`` without torch, and without running anything that the file says.

A torch checkpoint is a zip archive: ``data.pkl`` describes tensors as calls of a handful of torch functions, and
``data/<key>`` holds the bytes of each storage. The unpickler here knows the names of exactly those functions, none of
which does more than note its arguments; any other name is refused.
"""

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax.numpy as jnp
import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor

_STORAGES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_ADVICE = "Open the file in torch where you trust it, and save it as model.safetensors"


def read_torch_pickle(path: Path) -> Mapping[str, LazyTensor]:
    """Reads the names, shapes and dtypes of a state dict; the tensors are read when asked for.

    Args:
      path: a file written by ``torch.save(state_dict, path)`` of torch 1.6 or later.

    Returns:
      The tensors by name, in the file's order.

    Raises:
      ValueError: if the file is of the older format, is damaged, or holds anything but tensors by name.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a zip archive: it is damaged, or of the format before torch 1.6. {_ADVICE}.")
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"{path} is a zip archive, but not a torch checkpoint: it has {len(pickles)} data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError(f"{path} was written on a big-endian machine. {_ADVICE}.")
        try:
            state = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # a pickle can fail in any way; none of them is ours
            raise ValueError(f"{path} cannot be unpickled: {type(error).__name__}: {error}") from error
        if not isinstance(state, dict):
            raise ValueError(f"{path} holds a {type(state).__name__}, not a dict of tensors. {_ADVICE}.")
        stored = {info.filename: info for info in archive.infolist()}
        return {name: _lazy(path, root, name, tensor, stored) for name, tensor in state.items()}


class _Tensor(NamedTuple):
    key: str
    dtype: np.dtype
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class _Call:
    """A function the file may call. It has no attributes, so a pickle cannot change it either."""

    __slots__ = ()


class _RebuildTensor(_Call):
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        numbers = (offset, *shape, *strides)
        fits = isinstance(storage, _Storage) and len(shape) == len(strides)
        if not fits or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a tensor's description is malformed")
        return _Tensor(storage.key, storage.dtype, storage.count, offset, tuple(shape), tuple(strides))


class _RebuildParameter(_Call):
    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("collections", "OrderedDict"): collections.OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        raise ValueError(f"the file asks for {module}.{name}, which is not needed for tensors: refused. {_ADVICE}.")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str() as key, _, int() as count) if key.isalnum() and count >= 0:
                return _Storage(key, dtype, count)
        raise ValueError("a storage's description is malformed")


def _lazy(path: Path, root: str, name: Any, tensor: Any, stored: Mapping[str, zipfile.ZipInfo]) -> LazyTensor:
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise ValueError(f"{path} holds a {type(tensor).__name__}, not a tensor, under {name!r}. {_ADVICE}.")

    def damaged(what: str) -> NoReturn:
        raise ValueError(f"{path} is damaged: {what} of tensor {name!r}")

    if (member := f"{root}data/{tensor.key}") not in stored:
        damaged("there are no bytes")
    info = stored[member]
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != tensor.count * tensor.dtype.itemsize:
        damaged("wrong size")
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 not in tensor.shape and last >= tensor.count:
        damaged("wrong extent")

    def read() -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as archive:
                flat = np.frombuffer(archive.read(info), tensor.dtype)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is damaged: {error} (tensor {name!r})") from error
        if 0 in tensor.shape:
            return np.empty(tensor.shape, tensor.dtype)
        steps = [stride * tensor.dtype.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, steps, writeable=False)

    return LazyTensor(tensor.shape, tensor.dtype, read)
