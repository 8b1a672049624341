"""Softmax attention, written once for all models."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array

_MASKED = -1e30  # finite, so that a row without any allowed key stays finite; swallows every score in float32


def attend(
    q_BxTxHxD: Float[AnyArray, "b t h d"],
    k_BxSxHxD: Float[AnyArray, "b s h d"],
    v_BxSxHxD: Float[AnyArray, "b s h d"],
    *,
    mask: Bool[AnyArray, "#b #h #t s"] | None = None,
) -> Float[Array, "b t h d"]:
    r"""Scaled dot-product attention, :math:`\mathrm{softmax}(QK^\top / \sqrt{d})V`.

    Vaswani et al. (2017), section 3.2.1.

    The scores and their softmax are float32 whatever the inputs are. Accelerators take
    :func:`jax.nn.dot_product_attention`; on CPU the same sums are laid out as plain batched products, several times
    faster there (``benchmarks/encoder.py``).

    Args:
      q_BxTxHxD: queries.
      k_BxSxHxD: keys.
      v_BxSxHxD: values.
      mask: true where a query may look at a key; everywhere if None.

    Returns:
      The mixed values, in the dtype of the queries.
    """
    if mask is None:
        mask = np.ones((1, 1, 1, k_BxSxHxD.shape[1]), bool)
    operands = map(jnp.asarray, (q_BxTxHxD, k_BxSxHxD, v_BxSxHxD, mask))
    return jax.lax.platform_dependent(*operands, cpu=_attend_cpu, default=_attend_fused)


def _attend_fused(q_BxTxHxD: Array, k_BxSxHxD: Array, v_BxSxHxD: Array, mask: Array) -> Array:
    return jax.nn.dot_product_attention(q_BxTxHxD, k_BxSxHxD, v_BxSxHxD, mask=mask)


def _attend_cpu(q_BxTxHxD: Array, k_BxSxHxD: Array, v_BxSxHxD: Array, mask: Array) -> Array:
    """Both products see their operands as row-major matrices, and the softmax is divided out of the shorter side."""
    q_BxHxTxD = (q_BxTxHxD / jnp.sqrt(q_BxTxHxD.shape[-1]).astype(q_BxTxHxD.dtype)).transpose(0, 2, 1, 3)
    k_BxHxDxS = k_BxSxHxD.transpose(0, 2, 3, 1)
    v_BxHxSxD = v_BxSxHxD.transpose(0, 2, 1, 3)
    scores_BxHxTxS = jnp.matmul(q_BxHxTxD, k_BxHxDxS, preferred_element_type=jnp.float32)
    scores_BxHxTxS = scores_BxHxTxS + jnp.where(mask, 0.0, _MASKED)
    weights_BxHxTxS = jnp.exp(scores_BxHxTxS - scores_BxHxTxS.max(axis=-1, keepdims=True))
    total_BxHxTx1 = weights_BxHxTxS.sum(axis=-1, keepdims=True)
    mixed_BxHxTxD = jnp.matmul(weights_BxHxTxS.astype(v_BxHxSxD.dtype), v_BxHxSxD, preferred_element_type=jnp.float32)
    return (mixed_BxHxTxD / total_BxHxTx1).astype(q_BxTxHxD.dtype).transpose(0, 2, 1, 3)
