r"""Scales of inputs that make a kernel easier to quantise: AWQ and SmoothQuant.

Input i is divided by :math:`t_i` and its weights are multiplied by it, which changes nothing but what rounding does.
The released codes fold :math:`1 / t` into the norm or the layer before; here it stays beside the codes, as
``Quantized.input_scale``, so that every dense layer of every family can have one of its own.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.compression.calibration import InputStatistics
from zsml_jax.models import quantized
from zsml_jax.models.quantized import Quantized
from zsml_jax.typing import AnyArray, Array, Scalar

_GRID = 20


def awq(kernel: Float[AnyArray, "i o"], statistics: InputStatistics, **scheme: Any) -> Quantized:
    r"""Quantises a kernel with the scales :math:`t = \bar x^a` for the best of 20 exponents in [0, 1).

    Lin et al., "AWQ", 2024, with the released code's grid and normalisation by :math:`\sqrt{\max t \min t}`. The best
    is the one with the least squared error of the layer's own output, which its inputs' Gram matrix gives exactly; the
    released code takes the output of a whole attention for queries, keys and values together.

    Args:
      kernel: of one layer.
      statistics: of the layer's inputs, with the Gram matrix.
      **scheme: arguments of :func:`zsml_jax.models.quantized.quantize`.

    Returns:
      The quantised kernel.
    """
    if statistics.gram is None:
        raise ValueError("statistics must have the Gram matrix")
    gram = statistics.gram / statistics.count
    weights = jnp.asarray(kernel, jnp.float32)
    mean = statistics.magnitudes / statistics.count

    def scales(exponent: Array) -> Array:
        t = jnp.maximum(mean**exponent, 1e-4)
        return t / jnp.sqrt(t.max() * t.min())

    def error(exponent: Array) -> Array:
        t = scales(exponent)[:, None]
        lost = quantized.dequantize(quantized.quantize(weights * t, **scheme)) / t - weights
        return jnp.sum(lost * jnp.matmul(gram, lost, precision="highest"))

    exponents = jnp.arange(_GRID) / _GRID
    best = exponents[jnp.argmin(jax.lax.map(error, exponents))]
    return scaled(kernel, scales(best), **scheme)


def smoothquant(
    kernel: Float[AnyArray, "i o"], statistics: InputStatistics, *, strength: Scalar = 0.5, **scheme: Any
) -> Quantized:
    r"""Quantises a kernel with the scales :math:`t_i = \max |x_i|^\alpha / \max_o |w_{io}|^{1 - \alpha}`.

    Xiao et al., "SmoothQuant", 2023, equation 4: it moves the outliers of activations into the weights, for products of
    integers.

    Args:
      kernel: of one layer.
      statistics: of the layer's inputs.
      strength: :math:`\alpha`.
      **scheme: arguments of :func:`zsml_jax.models.quantized.quantize`.

    Returns:
      The quantised kernel.
    """
    inputs = jnp.maximum(statistics.largest, 1e-5)
    weights = jnp.maximum(jnp.abs(jnp.asarray(kernel, jnp.float32)).max(axis=1), 1e-5)
    return scaled(kernel, jnp.maximum(inputs**strength / weights ** (1 - strength), 1e-5), **scheme)


def scaled(kernel: Float[AnyArray, "i o"], t: Float[Array, " i"], **scheme: Any) -> Quantized:
    """Returns a kernel quantised with its inputs' scales."""
    small = quantized.quantize(jnp.asarray(kernel, jnp.float32) * t[:, None], **scheme)
    return dataclasses.replace(small, input_scale=1 / t, dtype=str(kernel.dtype))
