"""The static cache of a decoder: keys and values of the tokens so far, of all layers, in buffers of a fixed length."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.models.causal_mask import positions_of
from zsml_jax.typing import AnyArray, Array


class KvCache(NamedTuple):
    """Keys and values, a pytree of fixed shapes that can be carried through ``lax.while_loop`` and donated.

    All rows fill the same slots; what is padding in a row is marked so in ``is_token`` and never looked at. So
    padding may be left, right or both, and positions go on counting tokens.

    Attributes:
      keys: ``(l, b, s, g, k)``, already rotated: layers, rows, slots, key heads, width of a head.
      values: ``(l, b, s, g, k)``.
      is_token: ``(b, s)``, true at slots that hold a token.
      length: rank 0, slots filled so far.
    """

    keys: Float[Array, "*l b s g k"]
    values: Float[Array, "*l b s g k"]
    is_token: Bool[Array, "*l b s"]
    length: Int[Array, "*l"]

    @property
    def seen(self) -> Array:
        """Tokens of each row so far, ``(b,)``: the position of its next token."""
        return self.is_token.sum(axis=-1, dtype=jnp.int32)

    @property
    def positions(self) -> Array:
        """The position of each slot, ``(b, s)``."""
        return positions_of(self.is_token)


@runtime_checkable
class HasKeys(Protocol):
    """What :func:`init_cache` must know of a configuration."""

    @property
    def num_layers(self) -> int:
        """Layers."""
        ...

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        ...

    @property
    def key_width(self) -> int:
        """Width of a head."""
        ...

    @property
    def dtype(self) -> str:
        """Dtype of activations."""
        ...


def init_cache(config: HasKeys, batch: int, length: int, dtype: jax.typing.DTypeLike | None = None) -> KvCache:
    """Returns an empty cache.

    The module fills it. A prompt first, padded on either side, then a token at a time::

        cache = init_cache(config, batch, prompt_length + new_tokens)
        out = module.apply({"params": params}, prompt_BxT, mask_BxT, cache=cache, only_last=True)
        token_B = out.logits[:, -1].argmax(-1)
        out = module.apply({"params": params}, token_B[:, None], cache=out.cache)

    The mask of a call covers the tokens of that call only. A row that has ended is fed anything with a mask of 0.

    Args:
      config: the model's configuration, with ``num_layers``, ``key_heads``, ``key_width`` and ``dtype``.
      batch: rows b.
      length: slots s, one for each column ever fed, padding included.
      dtype: of keys and values; that of the activations if None.

    Returns:
      The cache.

    Raises:
      ValueError: if ``batch`` or ``length`` is not positive.
    """
    if batch < 1 or length < 1:
        raise ValueError(f"batch and length must be at least 1, got {batch} and {length}")
    shape = (config.num_layers, batch, length, config.key_heads, config.key_width)
    keys, values = (jnp.zeros(shape, jnp.dtype(dtype or config.dtype)) for _ in range(2))
    return KvCache(keys, values, jnp.zeros((batch, length), bool), jnp.zeros((), jnp.int32))


def mark_tokens(cache: KvCache, is_token_BxT: Bool[AnyArray, "b t"]) -> KvCache:
    """Marks the next t slots as tokens or padding and counts them as filled; keys and values are written by layers.

    Args:
      cache: the cache before.
      is_token_BxT: true at tokens.

    Raises:
      ValueError: if the rows differ, or the columns do not fit into the cache. Where the cache is traced its length is
        not known, and a caller must see to it: what is written past the end overwrites the last slots.
    """
    (rows, columns), (batch, slots) = is_token_BxT.shape, cache.is_token.shape
    if rows != batch:
        raise ValueError(f"tokens must have {batch} rows, as the cache has, got {rows}")
    filled = 0 if isinstance(cache.length, jax.core.Tracer) else int(cache.length)
    if filled + columns > slots:
        raise ValueError(
            f"tokens must have at most {slots - filled} columns, the free slots of the cache, got {columns}"
        )
    is_token_BxS = jax.lax.dynamic_update_slice(cache.is_token, jnp.asarray(is_token_BxT), (0, cache.length))
    return cache._replace(is_token=is_token_BxS, length=cache.length + columns)


def write_layer(
    buffer_LxBxSxGxK: Float[AnyArray, "l b s g k"],
    new_BxTxGxK: Float[AnyArray, "b t g k"],
    layer: Int[AnyArray, ""] | int,
    slot: Int[AnyArray, ""] | int,
) -> tuple[Float[Array, "l b s g k"], Float[Array, "b s g k"]]:
    """Writes a layer's new keys or values, in place where the buffer is donated or a loop's carry.

    Args:
      buffer_LxBxSxGxK: keys or values of all layers.
      new_BxTxGxK: what is new.
      layer: which layer.
      slot: the first slot to write to.

    Returns:
      The buffer, and the layer's part of it.
    """
    new_1xBxTxGxK = jnp.asarray(new_BxTxGxK)[None].astype(buffer_LxBxSxGxK.dtype)
    buffer = jax.lax.dynamic_update_slice(buffer_LxBxSxGxK, new_1xBxTxGxK, (layer, 0, slot, 0, 0))
    return buffer, jax.lax.dynamic_index_in_dim(buffer, layer, keepdims=False)
