"""Depthwise convolutions, on a CPU as one fused sum of shifted images.

XLA's CPU backend has no kernel for a convolution with as many groups as channels and takes a slow loop. A depthwise
kernel of k x k is k^2 shifted images, each times one number for each channel, and their sum is one loop over contiguous
channels. Accelerators keep the convolution of XLA.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import Array


def depthwise_conv(
    x_BxHxWxC: Float[Array, "b height width channels"],
    kernel: Float[Array, "i j 1 channels"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Float[Array, "b _ _ channels"]:
    """Returns ``jax.lax.conv_general_dilated`` of one kernel for each channel, for ``flax.linen.Conv`` to call.

    Args:
      x_BxHxWxC: the images.
      kernel: with one number a channel at each place.
      strides: rows and columns from one output to the next.
      padding: zeros before and after rows and columns, or a rule of ``jax.lax``.
      options: the other arguments of ``jax.lax.conv_general_dilated``; the inputs and the kernel are not dilated.
    """
    pads = (
        jax.lax.padtype_to_pads(x_BxHxWxC.shape[1:3], kernel.shape[:2], strides, padding)
        if isinstance(padding, str)
        else padding
    )

    def convolved(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, pads, **options)

    def summed(x: Array, kernel: Array) -> Array:
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        (rows, columns), (down, right) = kernel.shape[:2], strides
        heights, widths = x.shape[1] - rows + 1, x.shape[2] - columns + 1
        shifted = lambda i, j: x[:, i : i + heights : down, j : j + widths : right]
        terms = [shifted(i, j) * kernel[i, j, 0] for i in range(rows) for j in range(columns)]
        return functools.reduce(jnp.add, terms)

    return jax.lax.platform_dependent(x_BxHxWxC, kernel, cpu=summed, default=convolved)
