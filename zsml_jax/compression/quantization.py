"""Quantisation: kernels of a model replaced by small integers, with which it runs as it is.

``"dynamic"`` is the mode of "The Cost of Compression" (Namburi et al., 2023), PyTorch's dynamic quantisation: int8
weights with one scale a kernel, and products of integers with activations rounded to 7 bits between the least and the
greatest of the call. The other methods choose better codes for the formats of :mod:`zsml_jax.models.quantized`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax

from zsml_jax import transform
from zsml_jax.compression.calibration import Calibration, InputStatistics
from zsml_jax.compression.error_feedback import gptq
from zsml_jax.compression.groups import kernels
from zsml_jax.compression.input_scaling import awq, smoothquant
from zsml_jax.compression.layerwise import Compress, compress_blocks
from zsml_jax.models import quantized
from zsml_jax.models.quantized import Activations, Format, Group
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import AnyArray, Array, Params

Method = Literal["nearest", "dynamic", "gptq", "awq", "smoothquant"]
#: What a method sets where nothing is said.
DEFAULTS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "dynamic": {"group": "tensor", "activations": "tensor"},
    "gptq": {},
    "awq": {},
    "smoothquant": {"activations": "token"},
}


def quantize(
    params: Params,
    method: Method,
    *,
    groups: Patterns,
    calibration: Calibration | None = None,
    format: Format = "int8",
    group: Group | None = None,
    symmetric: bool = True,
    activations: Activations | None = None,
    masks: Mapping[str, AnyArray] | None = None,
) -> dict[str, Any]:
    """Replaces some kernels by quantised ones.

    >>> import jax.numpy as jnp
    >>> kernel = jnp.array([[1.0, 4.0], [-2.0, 3.0]])
    >>> small = quantize({"up": {"kernel": kernel}}, "nearest", groups="up/kernel")["up"]["kernel"]
    >>> small.codes.dtype.name, bool(abs(quantized.dequantize(small) - kernel).max() < 0.02)
    ('int8', True)

    Args:
      params: the parameters; a model takes those that are returned in their place.
      method: ``"nearest"`` code; ``"dynamic"`` as the paper; with calibration data ``"gptq"``, ``"awq"`` or
        ``"smoothquant"``, for kernels in layers only, one block of the model at a time.
      groups: the kernels, as paths or patterns of paths, such as ``groups(pretrained)["attention"]``.
      calibration: the data, for the methods that need it.
      format: "int8", "int4" or "nf4".
      group: inputs that share a scale: a number, ``"channel"`` for all inputs of an output (the default), or
        ``"tensor"``.
      symmetric: whether codes have no zero points.
      activations: what products do with activations: ``"float"``, which is the default, ``"tensor"`` or ``"token"``.
      masks: of pruned kernels, for ``"gptq"``, which would else bring removed weights back. All other methods leave
        zeros as they are.

    Returns:
      New parameters with a :class:`~zsml_jax.models.quantized.Quantized` at each of the paths.

    Raises:
      ValueError: if an argument is out of range or does not fit another, a path matches no kernel, or a kernel is not
        finite.
    """
    scheme = scheme_of(method, format, group, symmetric, activations, masks)
    chosen = kernels(params, groups)
    for kernel in chosen.values():  # so that what does not fit is found before the first block runs
        jax.eval_shape(functools.partial(quantized.quantize, **scheme), kernel)
    if method in ("nearest", "dynamic"):
        return transform.update(params, list(chosen), lambda kernel, _: quantized.quantize(kernel, **scheme))
    if calibration is None:
        raise ValueError(f"calibration must be given for {method!r}")
    compress, gram = layer_method(method, scheme, masks or {})
    return compress_blocks(params, calibration, list(chosen), compress, gram=gram)[0]


def scheme_of(
    method: str,
    format: str,
    group: Group | None,
    symmetric: bool,
    activations: str | None,
    masks: Mapping[str, AnyArray] | None = None,
) -> dict[str, Any]:
    """Returns the arguments of :func:`zsml_jax.models.quantized.quantize` that :func:`quantize` means by its own.

    Raises:
      ValueError: if the method is unknown, or the arguments do not fit it.
    """
    if method not in DEFAULTS:
        raise ValueError(f"method must be one of {sorted(DEFAULTS)}, got {method!r}")
    given = {"group": group, "activations": activations}
    scheme: dict[str, Any] = {"format": format, "symmetric": symmetric, "group": "channel", "activations": "float"}
    scheme |= DEFAULTS[method] | {name: value for name, value in given.items() if value is not None}
    _check_method(method, scheme, masks)
    return scheme


def _check_method(method: str, scheme: Mapping[str, Any], masks: Mapping[str, AnyArray] | None) -> None:
    if masks is not None and method != "gptq":
        raise ValueError(f"masks must be None with {method!r}, which leaves zeros as they are")
    if method == "dynamic" and (scheme["format"], scheme["symmetric"]) != ("int8", True):
        raise ValueError(f"format must be 'int8' and symmetric with 'dynamic', got {scheme['format']!r}")
    if method == "gptq" and scheme["format"] == "nf4":
        raise ValueError("format must be 'int8' or 'int4' with 'gptq', got 'nf4'")


def layer_method(method: str, scheme: Mapping[str, Any], masks: Mapping[str, AnyArray]) -> tuple[Compress, bool]:
    """Returns what compresses a kernel by its inputs, and whether it needs their Gram matrix."""
    if method != "gptq":
        scale = jax.jit(functools.partial({"awq": awq, "smoothquant": smoothquant}[method], **scheme))
        return lambda kernel, statistics, _: (scale(kernel, statistics), None), method == "awq"
    activations = scheme["activations"]
    rest = {name: value for name, value in scheme.items() if name != "activations"}
    run = jax.jit(functools.partial(gptq, **rest))

    def one(kernel: Array, statistics: InputStatistics, where: tuple[str, int]) -> tuple[Any, None]:
        path, i = where
        mask = masks.get(path)
        own = mask if mask is None or mask.ndim == 2 else mask[i]
        return dataclasses.replace(run(kernel, statistics.hessian, mask=own), activations=activations), None

    return one, True
