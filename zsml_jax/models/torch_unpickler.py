"""An unpickler that admits descriptions of tensors and nothing else.

torch pickles a state dict as calls of a handful of its functions. The unpickler knows the names of exactly those; each
only notes its arguments. Any other name is refused, so that a file cannot run anything.
"""

import collections
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

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


class Storage(NamedTuple):
    """A stretch of numbers that tensors share: its name, dtype and length."""

    key: str
    dtype: np.dtype
    count: int


class TensorView(NamedTuple):
    """A tensor on a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TensorUnpickler(pickle.Unpickler):
    """Reads a pickle of containers, numbers, strings and :class:`TensorView`.

    Attributes:
      storages: the storages met so far, by their keys.
    """

    def __init__(self, file: Any):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what stands for a name in the pickle; raises ValueError for a name that tensors do not need."""
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        raise ValueError(f"the file asks for {module}.{name}, which is not needed for tensors: refused")

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage that the pickle names."""
        match pid:
            # The older format adds a view, None unless the storage is a part of another.
            case ("storage", np.dtype() as dtype, str() as key, _, int() as count, *rest) if (
                key.isalnum() and count >= 0 and rest in ([], [None])
            ):
                storage = Storage(key, dtype, count)
                if self.storages.setdefault(key, storage) == storage:
                    return storage
        raise ValueError("a storage's description is malformed")


class _Call:
    """A function the file may call. It has no attributes, so a pickle cannot change it either."""

    __slots__ = ()


class _RebuildTensor(_Call):
    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> TensorView:
        numbers = (offset, *shape, *strides)
        fits = isinstance(storage, Storage) and len(shape) == len(strides)
        if not fits or not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a tensor's description is malformed")
        return TensorView(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter(_Call):
    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("collections", "OrderedDict"): collections.OrderedDict,
}
