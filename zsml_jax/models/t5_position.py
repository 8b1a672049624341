"""T5's relative positions: distances in buckets, exact when near and logarithmic when far (Raffel et al., 2020)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from zsml_jax.models.t5_config import T5Config
from zsml_jax.typing import AnyArray, Array


def relative_buckets(
    query_slots_T: Int[AnyArray, " t"],
    key_slots_S: Int[AnyArray, " s"],
    *,
    num_buckets: int,
    max_distance: int,
    bidirectional: bool,
) -> Int[Array, "t s"]:
    """Returns the bucket of each key's distance from each query.

    Raffel et al. (2020), section 2.1: half of the buckets hold one distance each, the others grow logarithmically up to
    ``max_distance``, and the last holds everything beyond. Where attention goes both ways, keys before and after a
    query have half of the buckets each; else keys after it share bucket 0.

    >>> slots = np.arange(6)
    >>> buckets = relative_buckets(slots[5:], slots, num_buckets=4, max_distance=8, bidirectional=False)
    >>> buckets.tolist()
    [[3, 3, 2, 2, 1, 0]]

    Args:
      query_slots_T: where the queries are, in tokens.
      key_slots_S: where the keys are.
      num_buckets: the number of buckets.
      max_distance: the distance from which on all share a bucket.
      bidirectional: whether queries look at keys after them.
    """
    after_TxS = jnp.asarray(key_slots_S)[None, :] - jnp.asarray(query_slots_T)[:, None]
    if not bidirectional:
        return jnp.asarray(_buckets(num_buckets, max_distance))[jnp.clip(-after_TxS, 0, max_distance)]
    half = num_buckets // 2
    bucket_TxS = jnp.asarray(_buckets(half, max_distance))[jnp.minimum(jnp.abs(after_TxS), max_distance)]
    return bucket_TxS + half * (after_TxS > 0)


class RelativeBias(nn.Module):
    """A number for each head and bucket of distances, added to scores."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self, query_slots_T: AnyArray, key_slots_S: AnyArray) -> Array:
        """Returns ``bias_1xHxTxS``, float32."""
        config = self.config
        bucket_TxS = relative_buckets(
            query_slots_T,
            key_slots_S,
            num_buckets=config.num_buckets,
            max_distance=config.max_distance,
            bidirectional=self.bidirectional,
        )
        embed = nn.Embed(config.num_buckets, config.num_heads, dtype=config.dtype, name="bucket")
        return embed(bucket_TxS).transpose(2, 0, 1)[None].astype(jnp.float32)


@functools.cache
def _buckets(num_buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of each distance 0 ... max_distance, in float32 as the pretrained models' code computes it."""
    exact = num_buckets // 2
    distance = np.arange(max_distance + 1)
    far = np.maximum(distance, 1).astype(np.float32) / np.float32(exact)
    grown = np.log(far) / np.float32(np.log(max_distance / exact)) * np.float32(num_buckets - exact)
    bucket = np.where(distance < exact, distance, np.minimum(exact + grown.astype(np.int32), num_buckets - 1))
    return bucket.astype(np.int32)
