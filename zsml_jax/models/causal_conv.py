"""The causal depthwise convolution over time, with the window of inputs that decoding goes on from.

Name suffixes: ``B`` batch, ``T`` time, ``D`` channels, ``K`` width of the kernel, ``W`` = K - 1, ``U`` = W + T.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array


class ConvOutput(NamedTuple):
    """What the convolution computes.

    Attributes:
      y: the outputs, ``(b, t, d)``.
      window: the inputs of the last k - 1 tokens of each row, ``(b, k - 1, d)``; the ``past`` of what comes next.
    """

    y: Array
    window: Array


def causal_conv(
    x: Float[AnyArray, "b t d"],
    kernel: Float[AnyArray, "k d"],
    bias: Float[AnyArray, " d"] | None = None,
    *,
    past: Float[AnyArray, "b _ d"] | None = None,
    is_token: Bool[AnyArray, "b t"] | None = None,
) -> ConvOutput:
    r"""Convolves each channel with its own kernel over the present and the past, :math:`y_t = \sum_j w_j x_{t-k+1+j}`.

    The sum is float32. Padding lies before or after the tokens of a row: they see zeros, or ``past``, before the first
    of them, and the window ends at the last.

    Args:
      x: the inputs.
      kernel: the weights; the last row is that of the present.
      bias: added to the sum.
      past: the k - 1 inputs before; zeros if None.
      is_token: false at padding; all are tokens if None.

    Returns:
      The outputs, in the dtype of ``x``, and the window.

    Raises:
      ValueError: if shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> out = causal_conv(jnp.arange(1.0, 5.0).reshape(1, 4, 1), jnp.array([[10.0], [1.0]]))
      >>> out.y.ravel().tolist(), out.window.ravel().tolist()
      ([1.0, 12.0, 23.0, 34.0], [4.0])
    """
    batch, length, channels = x.shape
    width = kernel.shape[0] - 1
    if kernel.shape[1] != channels:
        raise ValueError(f"kernel must have {channels} channels, as x has, got {kernel.shape}")
    if past is not None and past.shape != (batch, width, channels):
        raise ValueError(f"past must be {(batch, width, channels)}, got {past.shape}")
    if is_token is not None and is_token.shape != (batch, length):
        raise ValueError(f"is_token must be {(batch, length)}, got {is_token.shape}")
    x_BxTxD = jnp.asarray(x)
    if is_token is not None:
        x_BxTxD = jnp.where(is_token[..., None], x_BxTxD, 0)
    if past is None:
        x_BxUxD = jnp.pad(x_BxTxD, ((0, 0), (width, 0), (0, 0)))
    else:
        x_BxUxD = jnp.concatenate([jnp.asarray(past, x_BxTxD.dtype), x_BxTxD], axis=1)
        if is_token is not None:
            x_BxUxD = jnp.take_along_axis(x_BxUxD, _past_before_tokens(is_token, width)[..., None], axis=1)
    y_BxTxD = x_BxUxD[:, :length].astype(jnp.float32) * kernel[0]
    for j in range(1, width + 1):
        y_BxTxD += x_BxUxD[:, j : j + length].astype(jnp.float32) * kernel[j]
    if bias is not None:
        y_BxTxD += bias
    if is_token is None:
        window_BxWxD = x_BxUxD[:, length:]
    else:
        end_Bx1 = jnp.max(jnp.where(is_token, jnp.arange(1, length + 1), 0), axis=1, keepdims=True)
        window_BxWxD = jnp.take_along_axis(x_BxUxD, (end_Bx1 + jnp.arange(width))[..., None], axis=1)
    return ConvOutput(y_BxTxD.astype(x_BxTxD.dtype), window_BxWxD)


def _past_before_tokens(is_token_BxT: AnyArray, width: int) -> Array:
    """Columns of past and inputs, ``(b, u)``, in the order that puts the past right before the first token."""
    # A row without tokens has its past at the very left, where its window of length 0 ends.
    first_Bx1 = jnp.argmax(is_token_BxT, axis=1, keepdims=True)
    column_U = jnp.arange(width + is_token_BxT.shape[1])
    return jnp.where(column_U < first_Bx1 + width, jnp.maximum(column_U - first_Bx1, 0), column_U)
