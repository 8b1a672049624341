"""Reads ``pytorch_model.bin`` without torch, and without running anything that the file says.

Since torch 1.6 a checkpoint is a zip archive: ``data.pkl`` describes the tensors, and ``data/<key>`` holds the bytes of
each storage. Before, it was a row of pickles (a magic number, the protocol, the writing machine, the tensors, the keys
of the storages) with the bytes behind them. Both go through :class:`.torch_unpickler.TensorUnpickler`.
"""

import functools
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.torch_unpickler import TensorUnpickler, TensorView

_ADVICE = "Open the file in torch where you trust it, and save it as model.safetensors"
_STREAM_MAGIC, _STREAM_PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def read_torch_pickle(path: Path) -> Mapping[str, LazyTensor]:
    """Reads the names, shapes and dtypes of a state dict; the tensors are read when asked for.

    Args:
      path: a file written by ``torch.save(state_dict, path)``.

    Returns:
      The tensors by name, in the file's order.

    Raises:
      ValueError: if the file is damaged, or holds anything but tensors by name.
    """
    try:
        state, stored = _read_archive(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {_ADVICE}.") from error
    except Exception as error:  # a pickle can fail in any way; none of them is ours
        raise ValueError(f"{path} cannot be unpickled: {type(error).__name__}: {error}. {_ADVICE}.") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a dict of tensors. {_ADVICE}.")
    return {name: _lazy(path, name, view, stored) for name, view in state.items()}


class _Stored(NamedTuple):
    """The bytes of a storage: how many, and how to read them."""

    size: int
    read: Callable[[], bytes]


def _read_archive(path: Path) -> tuple[Any, dict[str, _Stored]]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"this is a zip archive, but not a torch checkpoint: it has {len(pickles)} data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("the file was written on a big-endian machine")
        state = TensorUnpickler(io.BytesIO(archive.read(pickles[0]))).load()
        # torch never compresses; a compressed member could unpack to anything.
        members = [info for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED]
        data = f"{root}data/"
        return state, {
            info.filename.removeprefix(data): _Stored(info.file_size, functools.partial(_member, path, info))
            for info in members
            if info.filename.startswith(data)
        }


def _member(path: Path, info: zipfile.ZipInfo) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(info)


def _read_stream(path: Path) -> tuple[Any, dict[str, _Stored]]:
    with path.open("rb") as file:
        if TensorUnpickler(file).load() != _STREAM_MAGIC or TensorUnpickler(file).load() != _STREAM_PROTOCOL:
            raise ValueError("this is not a torch checkpoint")
        machine = TensorUnpickler(file).load()
        if not isinstance(machine, dict) or not machine.get("little_endian"):
            raise ValueError("the file was written on a big-endian machine")
        unpickler = TensorUnpickler(file)
        state, keys = unpickler.load(), TensorUnpickler(file).load()
        stored = {}
        for key in keys:  # each storage is its length, eight bytes, and its numbers
            size = int.from_bytes(file.read(8), "little") * unpickler.storages[key].dtype.itemsize
            stored[key] = _Stored(size, functools.partial(_stretch, path, file.tell(), size))
            file.seek(size, os.SEEK_CUR)
        return state, stored


def _stretch(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _lazy(path: Path, name: Any, view: Any, stored: Mapping[str, _Stored]) -> LazyTensor:
    if not isinstance(name, str) or not isinstance(view, TensorView):
        raise ValueError(f"{path} holds a {type(view).__name__}, not a tensor, under {name!r}. {_ADVICE}.")

    def damaged(what: str) -> NoReturn:
        raise ValueError(f"{path} is damaged: {what} of tensor {name!r}")

    dtype, shape = view.storage.dtype, view.shape
    if view.storage.key not in stored:
        damaged("there are no bytes")
    source = stored[view.storage.key]
    if source.size != view.storage.count * dtype.itemsize:
        damaged("wrong size")
    last = view.offset + sum((n - 1) * stride for n, stride in zip(shape, view.strides, strict=True))
    if 0 not in shape and last >= view.storage.count:
        damaged("wrong extent")

    def read() -> np.ndarray:
        try:
            content = source.read()
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path} is damaged: {error} (tensor {name!r})") from error
        if len(content) != source.size:
            damaged("the file ends before the end")
        if 0 in shape:
            return np.empty(shape, dtype)
        flat = np.frombuffer(content, dtype)[view.offset :]
        steps = [stride * dtype.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)

    return LazyTensor(shape, dtype, read)
