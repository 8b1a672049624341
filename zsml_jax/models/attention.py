"""Softmax attention, written once for all models."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array

_CAUSAL_BLOCK, _MOST_BLOCKS = 64, 16  # queries; the second bounds the size of the program
_MASKED = -1e30  # finite, so that a row without any allowed key stays finite; swallows every score in float32


def attend(
    q_BxTxHxD: Float[AnyArray, "b t h d"],
    k_BxSxGxD: Float[AnyArray, "b s g d"],
    v_BxSxGxD: Float[AnyArray, "b s g d"],
    *,
    mask: Bool[AnyArray, "#b #h #t s"] | None = None,
    bias: Float[AnyArray, "#b #h #t s"] | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    window: int | None = None,
) -> Float[Array, "b t h d"]:
    r"""Scaled dot-product attention, :math:`\mathrm{softmax}(s QK^\top)V` with :math:`s = 1 / \sqrt{d}`.

    Vaswani et al. (2017), section 3.2.1. With fewer heads of keys than of queries (grouped queries, Ainslie et al.,
    2023), each is shared by ``h / g`` consecutive query heads, and never repeated in memory.

    The scores and their softmax are float32 whatever the inputs are. Accelerators take
    :func:`jax.nn.dot_product_attention`, in cuDNN's flash kernel where that runs and there is no ``mask`` and no
    ``bias``; on CPU the same sums are laid out as plain batched products, several times faster there
    (``benchmarks/encoder.py``), and causal ones leave out most of what they would mask (``benchmarks/peft.py``).

    Args:
      q_BxTxHxD: queries.
      k_BxSxGxD: keys; their heads g divide h.
      v_BxSxGxD: values.
      mask: true where a query may look at a key; everywhere if None.
      bias: added to the scores after the factor; nothing if None.
      scale: the factor s on scores; :math:`1 / \sqrt{d}` if None.
      is_causal: whether query i looks at keys 0 ... i only. Flash kernels skip the rest instead of masking it.
      window: with ``is_causal``, how many keys a query sees, its own included; all if None.

    Returns:
      The mixed values, in the dtype of the queries.

    Raises:
      ValueError: if the heads do not fit, or there is a ``window`` without ``is_causal``.
    """
    heads, groups = q_BxTxHxD.shape[2], k_BxSxGxD.shape[2]
    if heads % groups:
        raise ValueError(f"the heads of k_BxSxGxD must divide those of q_BxTxHxD, {heads}, got {groups}")
    if window is not None and (not is_causal or window < 1):
        raise ValueError(f"window must be at least 1 and come with is_causal, got {window} and {is_causal}")
    scale = q_BxTxHxD.shape[-1] ** -0.5 if scale is None else scale
    settings = {"scale": scale, "is_causal": is_causal, "window": window}
    operands = tuple(map(jnp.asarray, (q_BxTxHxD, k_BxSxGxD, v_BxSxGxD)))
    given = {name: jnp.asarray(x) for name, x in (("mask", mask), ("bias", bias)) if x is not None}
    return jax.lax.platform_dependent(
        *operands,
        given,
        cpu=lambda q, k, v, on: _attend_cpu(q, k, v, on.get("mask"), on.get("bias"), **settings),
        default=lambda q, k, v, on: _attend_fused(q, k, v, on.get("mask"), on.get("bias"), **settings),
    )


def _attend_fused(
    q_BxTxHxD: Array,
    k_BxSxGxD: Array,
    v_BxSxGxD: Array,
    mask: Array | None,
    bias: Array | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    window: int | None = None,
) -> Array:
    return jax.nn.dot_product_attention(
        q_BxTxHxD,
        k_BxSxGxD,
        v_BxSxGxD,
        bias,
        mask=mask,
        scale=scale,
        is_causal=is_causal,
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn" if mask is None and bias is None and _runs_in_cudnn(q_BxTxHxD, k_BxSxGxD) else "xla",
    )


def _attend_cpu(
    q_BxTxHxD: Array,
    k_BxSxGxD: Array,
    v_BxSxGxD: Array,
    mask: Array | None,
    bias: Array | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    window: int | None = None,
) -> Array:
    """Causal attention goes by blocks of queries, each with the keys that one of them may see."""
    if not is_causal:
        return _attend_block(q_BxTxHxD, k_BxSxGxD, v_BxSxGxD, mask, bias, scale=scale)
    length, slots = q_BxTxHxD.shape[1], k_BxSxGxD.shape[1]
    size = max(_CAUSAL_BLOCK, -(-length // _MOST_BLOCKS))
    mixed = []
    for start in range(0, length, size):
        queries = slice(start, min(start + size, length))
        keys = slice(0 if window is None else max(0, start - window + 1), min(queries.stop, slots))
        distance_TxS = np.arange(length)[queries, None] - np.arange(slots)[keys]
        seen_TxS = (distance_TxS >= 0) & (distance_TxS < (window or length))
        mixed.append(
            _attend_block(
                q_BxTxHxD[:, queries],
                k_BxSxGxD[:, keys],
                v_BxSxGxD[:, keys],
                _and(_cut(mask, queries, keys), seen_TxS[None, None]),
                _cut(bias, queries, keys),
                scale=scale,
            )
        )
    return mixed[0] if len(mixed) == 1 else jnp.concatenate(mixed, axis=1)


def _attend_block(
    q_BxTxHxD: Array,
    k_BxSxGxD: Array,
    v_BxSxGxD: Array,
    mask: AnyArray | None,
    bias: Array | None = None,
    *,
    scale: float | None = None,
) -> Array:
    """Both products see their operands as row-major matrices, and the softmax is divided out of the shorter side.

    The query heads that share a key head are rows of one matrix: ``N`` = T h / g of them.
    """
    b, t, h, d = q_BxTxHxD.shape
    s, g = k_BxSxGxD.shape[1:3]
    scale = d**-0.5 if scale is None else scale
    q_BxGxNxD = (q_BxTxHxD * jnp.asarray(scale, q_BxTxHxD.dtype)).transpose(0, 2, 1, 3).reshape(b, g, h // g * t, d)
    k_BxGxDxS = k_BxSxGxD.transpose(0, 2, 3, 1)
    v_BxGxSxD = v_BxSxGxD.transpose(0, 2, 1, 3)
    scores_BxGxNxS = jnp.matmul(q_BxGxNxD, k_BxGxDxS, preferred_element_type=jnp.float32)
    if mask is not None or bias is not None:
        scores_BxHxTxS = scores_BxGxNxS.reshape(b, h, t, s)
        scores_BxHxTxS = scores_BxHxTxS if bias is None else scores_BxHxTxS + bias
        scores_BxHxTxS = scores_BxHxTxS if mask is None else scores_BxHxTxS + jnp.where(mask, 0.0, _MASKED)
        scores_BxGxNxS = scores_BxHxTxS.reshape(b, g, h // g * t, s)
    weights_BxGxNxS = jnp.exp(scores_BxGxNxS - scores_BxGxNxS.max(axis=-1, keepdims=True))
    total_BxGxNx1 = weights_BxGxNxS.sum(axis=-1, keepdims=True)
    mixed_BxGxNxD = jnp.matmul(weights_BxGxNxS.astype(v_BxGxSxD.dtype), v_BxGxSxD, preferred_element_type=jnp.float32)
    mixed_BxHxTxD = (mixed_BxGxNxD / total_BxGxNx1).astype(q_BxTxHxD.dtype).reshape(b, h, t, d)
    return mixed_BxHxTxD.transpose(0, 2, 1, 3)


def _cut(x: Array | None, queries: slice, keys: slice) -> Array | None:
    """The part of a mask or a bias that is of these queries and keys."""
    if x is None:
        return None
    return (x if x.shape[2] == 1 else x[:, :, queries])[..., keys]


def _and(mask: Array | None, other: np.ndarray | None) -> AnyArray | None:
    return other if mask is None else mask if other is None else mask & other


def _runs_in_cudnn(q_BxTxHxD: Array, k_BxSxGxD: Array) -> bool:
    """Whether cuDNN's flash attention takes these operands: half precision, heads of at most 128, a CUDA backend."""
    width = q_BxTxHxD.shape[-1]
    half = q_BxTxHxD.dtype in (jnp.bfloat16, jnp.float16) and q_BxTxHxD.dtype == k_BxSxGxD.dtype
    if not half or width % 8 or width > 128 or jax.default_backend() != "gpu":
        return False
    return "cuda" in jax.local_devices()[0].client.platform_version.lower()
