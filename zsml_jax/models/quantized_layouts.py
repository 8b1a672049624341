"""How a quantised kernel lies in a file: as the tensors of compressed-tensors, or as they are.

compressed-tensors (https://github.com/vllm-project/compressed-tensors) is the layout that vLLM, llm-compressor and
transformers share. Weights that meet activations as they are have the format ``pack-quantized``: codes of 4 or 8 bits
in words of 32, the first input lowest. Those that meet integers have ``int-quantized``, one byte a code. It knows no
nf4, no scales of inputs, and nothing but linear layers whose weights are kept as ``(out, in)``. What it cannot say is
kept in a layout of this package, the arrays of :class:`~zsml_jax.models.quantized.Quantized` as they are.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor, Outgoing
from zsml_jax.models.quantized import Quantized
from zsml_jax.models.rules import TRANSPOSE, Rule

#: ``"own"`` is the layout of this package.
Layout = Literal["compressed-tensors", "own"]
_BITS = {"int8": 8, "int4": 4}
#: What codes of the files are larger by than ours.
_OFFSET = {"int8": 128, "int4": 8}
#: What compressed-tensors says of activations: those of each row by themselves, or all of a call in 7 bits.
_ACTIVATIONS: dict[str, dict[str, Any] | None] = {
    "float": None,
    "token": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True},
    "tensor": {"num_bits": 7, "type": "int", "symmetric": False, "strategy": "tensor", "dynamic": True},
}
_FIELDS = ("codes", "scale", "zero", "input_scale")


def obstacle(rule: Rule, kernel: Quantized) -> str | None:
    """Returns why compressed-tensors cannot hold a kernel, None if it can."""
    if kernel.format not in _BITS:
        return f"has no {kernel.format}"
    if kernel.input_scale is not None:
        return "has no scales of inputs"
    if not isinstance(rule.path, str) or rule.transform is not TRANSPOSE or not rule.source.endswith(".weight"):
        return "needs a linear layer of its own, kept as (out, in)"
    return None


def tensors_of(
    name: str, part: int | None, shape: Quantized, read: Callable[[], Quantized], layout: Layout
) -> dict[str, Outgoing]:
    """Returns the tensors of one kernel.

    Args:
      name: of the weight that the file of the model that is not quantised has.
      part: the kernel's number, where that weight holds several.
      shape: of the kernel, whose leaves have shapes and dtypes.
      read: fetches the kernel.
      layout: how it lies in the file.
    """
    if layout == "own":
        stem = name if part is None else f"{name}.{part}"
        fields = [field for field in _FIELDS if getattr(shape, field) is not None]
        return {
            f"{stem}.{field}": Outgoing(
                _bytes(getattr(shape, field)), lambda field=field: np.asarray(getattr(read(), field), order="C")
            )
            for field in fields
        }
    base, (inputs, outputs), bits = name.removesuffix(".weight"), shape.shape, _BITS[shape.format]
    groups = shape.scale.shape[0]
    per_group = (1,) if shape.scale.shape[1] == 1 and outputs > 1 else (outputs, groups)
    tensors = {f"{base}.weight_scale": Outgoing(4 * math.prod(per_group), lambda: _turned(read().scale, per_group))}
    packed = shape.activations == "float"
    if packed:
        width = _words(inputs, bits)
        tensors[f"{base}.weight_packed"] = Outgoing(4 * outputs * width, lambda: _packed(read(), inputs, bits))
        tensors[f"{base}.weight_shape"] = Outgoing(16, lambda: np.array([outputs, inputs], np.int64))
    else:
        tensors[f"{base}.weight"] = Outgoing(inputs * outputs, lambda: _turned(read().codes, (outputs, inputs)))
    if shape.zero is not None:

        def zero() -> np.ndarray:
            codes = np.asarray(read().zero)
            if packed and len(per_group) == 2:  # along the outputs
                return np.ascontiguousarray(_packed_rows(codes, shape.format).T)
            return _turned(codes, per_group)

        size = 4 * _words(outputs, bits) * groups if packed and len(per_group) == 2 else math.prod(per_group)
        tensors[f"{base}.weight_zero_point"] = Outgoing(size, zero)
    return tensors


def scheme_of(kernel: Quantized) -> dict[str, Any]:
    """Returns what the config file of compressed-tensors says of a kernel."""
    groups = kernel.scale.shape[-2]
    one = kernel.scale.shape[-1] == 1 and kernel.shape[-1] > 1
    strategy = "tensor" if one else "channel" if groups == 1 else "group"
    return {
        "weights": {
            "num_bits": _BITS[kernel.format],
            "type": "int",
            "symmetric": kernel.zero is None,
            "strategy": strategy,
            "group_size": kernel.inputs // groups if strategy == "group" else None,
            "dynamic": False,
        },
        "input_activations": _ACTIVATIONS[kernel.activations],
        "output_activations": None,
        "format": "pack-quantized" if kernel.activations == "float" else "int-quantized",
    }


def read_packed(
    base: str, tensors: Mapping[str, LazyTensor], scheme: Mapping[str, Any], dtype: str
) -> tuple[Quantized, Callable[[], Quantized]]:
    """Returns the shapes of a kernel in a file of compressed-tensors, and what reads it.

    Args:
      base: name of the layer.
      tensors: of the file.
      scheme: what the config file says of the layer.
      dtype: of the array that the kernel stands for.

    Raises:
      ValueError: if there is more to the scheme than :class:`Quantized` holds, or the tensors do not fit it.
    """
    format, activations = _format(base, scheme), _activations(base, scheme)
    weights = scheme["weights"]
    packed = f"{base}.weight_packed" in tensors
    needed = ["weight_packed", "weight_shape"] if packed else ["weight"]
    needed += ["weight_scale"] + ([] if weights.get("symmetric", True) else ["weight_zero_point"])
    if missing := [name for name in needed if f"{base}.{name}" not in tensors]:
        raise ValueError(f"{base} is quantised and lacks {missing}")
    get = lambda name: tensors[f"{base}.{name}"]
    if packed:
        outputs, inputs = (int(size) for size in np.asarray(get("weight_shape").read()))
        expected = (outputs, _words(inputs, _BITS[format]))
    else:
        outputs, inputs = expected = get("weight").shape
    strategy = weights.get("strategy") or ("group" if (weights.get("group_size") or -1) > 0 else "tensor")
    groups = inputs // weights["group_size"] if strategy == "group" else 1
    per_group = (1,) if strategy == "tensor" else (outputs, groups)
    codes = get("weight_packed" if packed else "weight")
    scale_shape = get("weight_scale").shape
    if codes.shape != expected or math.prod(scale_shape) != math.prod(per_group):
        raise ValueError(
            f"{base} must have codes {expected} and scales {per_group}, got {codes.shape} and {scale_shape}"
        )
    rows = inputs if format == "int8" else -(-inputs // 2)
    struct, one = jax.ShapeDtypeStruct, (1, 1) if strategy == "tensor" else (groups, outputs)
    shape = Quantized(
        struct((rows, outputs), np.int8 if format == "int8" else np.uint8),
        struct(one, np.float32),
        None if "weight_zero_point" not in needed else struct(one, np.int8),
        *(format, inputs, dtype, activations),
    )

    def read() -> Quantized:
        values = np.asarray(codes.read())
        own = _unpacked(values, inputs, format) if packed else _stored(values, format)
        scale = np.asarray(get("weight_scale").read()).astype(np.float32).reshape(per_group)
        zero = None
        if shape.zero is not None:
            zero = np.asarray(get("weight_zero_point").read())
            if packed and strategy != "tensor":
                zero = _codes(np.ascontiguousarray(zero.T), outputs, format).T
            zero = zero.reshape(per_group).T.reshape(one).astype(np.int8)
        return Quantized(own, scale.T.reshape(one), zero, format, inputs, dtype, activations)

    return shape, read


def read_own(
    stem: str, tensors: Mapping[str, LazyTensor], scheme: Mapping[str, Any], dtype: str
) -> tuple[Quantized, Callable[[], Quantized]]:
    """Returns what :func:`read_packed` does of a kernel in this package's layout, whose tensors begin with ``stem``."""
    own = {field: tensors.get(f"{stem}.{field}") for field in _FIELDS}
    if own["codes"] is None or own["scale"] is None:
        raise ValueError(f"{stem} is quantised and must have codes and a scale")
    rest = (scheme["format"], scheme["inputs"], dtype, scheme["activations"])
    build = lambda each: Quantized(each["codes"], each["scale"], each["zero"], *rest, each["input_scale"])
    abstract = lambda x: None if x is None else jax.ShapeDtypeStruct(x.shape, x.dtype)
    read = lambda x: None if x is None else x.read()
    return build(jax.tree.map(abstract, own, is_leaf=_is_tensor)), lambda: build({k: read(x) for k, x in own.items()})


def own_scheme(kernel: Quantized) -> dict[str, Any]:
    """Returns what the config file says of a kernel in this package's layout."""
    return {"format": kernel.format, "inputs": kernel.inputs, "activations": kernel.activations}


def _is_tensor(node: Any) -> bool:
    return node is None or isinstance(node, LazyTensor)


def _format(base: str, scheme: Mapping[str, Any]) -> str:
    weights = scheme.get("weights") or {}
    bits = {size: name for name, size in _BITS.items()}
    known = ("tensor", "channel", "group", None)
    if weights.get("type", "int") != "int" or weights.get("num_bits", 8) not in bits:
        raise ValueError(f"{base} must have integers of 4 or 8 bits, got {weights.get('num_bits')} {weights}")
    if weights.get("strategy") not in known or weights.get("actorder") == "group":
        raise ValueError(f"{base} must have scales by tensor, channel or group of consecutive inputs, got {weights}")
    return bits[weights.get("num_bits", 8)]


def _activations(base: str, scheme: Mapping[str, Any]) -> str:
    given = scheme.get("input_activations")
    for name, known in _ACTIVATIONS.items():
        if given is known or (given and known and all(given.get(key) == value for key, value in known.items())):
            return name
    raise ValueError(f"{base} must have activations as they are, or rounded for each token, got {given}")


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize


def _words(count: int, bits: int) -> int:
    return -(-count * bits // 32)


def _turned(leaf: Any, shape: tuple[int, ...]) -> np.ndarray:
    """From ``(in, out)`` to ``(out, in)``."""
    return np.ascontiguousarray(np.asarray(leaf).T).reshape(shape)


def _packed(kernel: Quantized, inputs: int, bits: int) -> np.ndarray:
    """The codes as words ``(out, ceil(bits * in / 32))``. Our halves of bytes are theirs already."""
    if bits == 8:
        return _packed_rows(np.asarray(kernel.codes).T, kernel.format)
    return _as_words(np.ascontiguousarray(np.asarray(kernel.codes).T))


def _packed_rows(codes: np.ndarray, format: str) -> np.ndarray:
    """Rows of codes as words."""
    own = (codes.astype(np.int16) + _OFFSET[format]).astype(np.uint8)
    if format == "int4":
        own = np.pad(own, ((0, 0), (0, own.shape[1] % 2)))
        own = own[:, 0::2] | (own[:, 1::2] << 4)
    return _as_words(own)


def _as_words(rows: np.ndarray) -> np.ndarray:
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return np.ascontiguousarray(padded).view("<i4")


def _codes(words: np.ndarray, count: int, format: str) -> np.ndarray:
    """Rows of so many codes from words: the inverse of :func:`_packed_rows`."""
    own = np.ascontiguousarray(words).view(np.uint8)
    if format == "int4":
        own = np.stack([own & 15, own >> 4], axis=-1).reshape(len(own), -1)
    return (own[:, :count].astype(np.int16) - _OFFSET[format]).astype(np.int8)


def _unpacked(words: np.ndarray, inputs: int, format: str) -> np.ndarray:
    if format == "int8":
        return np.ascontiguousarray(_codes(words, inputs, format).T)
    rows = np.ascontiguousarray(words).view(np.uint8)[:, : -(-inputs // 2)]
    return np.ascontiguousarray(rows.T)


def _stored(codes: np.ndarray, format: str) -> np.ndarray:
    """One byte a code ``(out, in)``, as :class:`Quantized` has them."""
    own = np.ascontiguousarray(codes.T).astype(np.int8)
    if format == "int8":
        return own
    halves = np.pad((own + _OFFSET[format]).astype(np.uint8), ((0, own.shape[0] % 2), (0, 0)))
    return halves[0::2] | (halves[1::2] << 4)
