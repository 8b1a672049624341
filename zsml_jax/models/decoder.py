"""Decoders with attention: GPT-2, GPT-Neo, GPT-NeoX and the Llama family as one Linen module.

Radford et al. (2019); Black et al. (2021, 2022) and Biderman et al. (2023, Pythia); Touvron et al. (2023), Jiang et al.
(2023, Mistral), Yang et al. (2024, 2025, Qwen 2 and 3). They differ in the ways that :class:`DecoderConfig` names: how
positions enter, which norm, biases, shared key heads, windows, a gate in the MLP, and where the residual sums are.

Name suffixes: ``B`` batch, ``T`` tokens, ``S`` slots of the cache, ``D`` model width, ``F`` hidden width of the MLP,
``H`` query heads, ``G`` key heads, ``K`` width of a head, ``L`` layers, ``V`` vocabulary.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from zsml_jax.data.token_rows import document_mask
from zsml_jax.models.attention import attend
from zsml_jax.models.causal_mask import (
    causal_mask,
    check_mask,
    last_tokens,
    positions_in_segments,
    positions_of,
    window_mask,
)
from zsml_jax.models.decoder_config import DecoderConfig
from zsml_jax.models.dense import Dense
from zsml_jax.models.kv_cache import KvCache, init_cache, mark_tokens, write_layer
from zsml_jax.models.layer_stack import run_layers
from zsml_jax.models.mlp import Mlp
from zsml_jax.models.norms import norm
from zsml_jax.models.outputs import LmOutput
from zsml_jax.models.rotary import cos_sin, rotate
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array

_NO_WINDOW = np.iinfo(np.int32).max


class _Context(NamedTuple):
    """What all layers see alike; each field is None where the configuration or the call does not have it."""

    mask_BxTxS: Array | None
    cos_sin_BxTxF: tuple[Array, Array] | None
    positions: tuple[Array, Array] | None  # of queries and of keys, where layers have windows of their own
    slot: Array | None


class _PerLayer(NamedTuple):
    index: AnyArray
    window: AnyArray | None


class Decoder(nn.Module):
    """The decoder with its head.

    Parameter paths are ``embeddings/word/embedding``, ``embeddings/position/embedding``, then for all layers at once
    ``layers/attention_norm/scale``, ``layers/attention/query/kernel`` (and ``key``, ``value``, ``out``,
    ``query_norm``, ``key_norm``), ``layers/mlp_norm/scale``, ``layers/mlp/up/kernel`` (and ``gate``, ``down``), and
    ``norm/scale`` and ``head/kernel``.
    """

    config: DecoderConfig

    @property
    def max_tokens(self) -> int | None:
        """The most tokens that a row may have, where positions are learned; rotated ones have no such limit."""
        return self.config.max_positions if self.config.rotary is None else None

    def init_cache(self, batch: int, length: int) -> KvCache:
        """Returns an empty cache of ``length`` slots, see :func:`~zsml_jax.models.kv_cache.init_cache`."""
        return init_cache(self.config, batch, length)

    @nn.compact
    def __call__(
        self,
        tokens_BxT: Int[AnyArray, "b t"],
        attention_mask_BxT: Shaped[AnyArray, "b t"] | None = None,
        *,
        segments_BxT: Int[AnyArray, "b t"] | None = None,
        cache: KvCache | None = None,
        only_last: bool = False,
    ) -> LmOutput:
        """Scores the next token at each position.

        Args:
          tokens_BxT: token ids.
          attention_mask_BxT: non-zero at tokens, 0 at padding, which may be on either side; all are tokens if None.
          segments_BxT: packed documents by number, 0 at padding, as :func:`zsml_jax.data.token_batches` gives them: a
            token sees its own document, and positions begin anew with each. In place of a mask, and without a cache.
          cache: the tokens before these, from :func:`~zsml_jax.models.kv_cache.init_cache` or the call before.
          only_last: whether to compute logits at the last token of each row only, as ``(b, 1, v)``.

        Returns:
          Logits, last hidden states, and the cache with these tokens in it if one was given.

        Raises:
          ValueError: if the mask or the segments have another shape, segments come with a mask or a cache, or there are
            more tokens than positions are learned, or than the cache has free slots.
        """
        config = self.config
        check_mask(attention_mask_BxT, tokens_BxT)
        check_mask(segments_BxT, tokens_BxT, "segments")
        if segments_BxT is not None and (attention_mask_BxT is not None or cache is not None):
            raise ValueError("segments must come without an attention_mask, as they know padding, and without a cache")
        length = tokens_BxT.shape[1]
        if config.rotary is None and length > config.max_positions:
            raise ValueError(f"tokens must have at most {config.max_positions} columns (positions), got {length}")
        if cache is not None:
            is_token_BxT = np.ones(tokens_BxT.shape, bool) if attention_mask_BxT is None else attention_mask_BxT != 0
            cache = mark_tokens(cache, is_token_BxT)
        positions_BxT, context = self._context(length, attention_mask_BxT, segments_BxT, cache)
        x_BxTxD = Embeddings(config, name="embeddings")(jnp.asarray(tokens_BxT), positions_BxT)
        buffers = None if cache is None else (cache.keys, cache.values)
        layers = _PerLayer(np.arange(config.num_layers, dtype=np.int32), _mixed_windows(config))
        (x_BxTxD, buffers), _ = run_layers(
            DecoderLayer, config, (x_BxTxD, buffers), context, layers, num_layers=config.num_layers
        )
        if cache is not None and buffers is not None:
            cache = cache._replace(keys=buffers[0], values=buffers[1])
        if only_last:
            x_BxTxD = last_tokens(x_BxTxD, attention_mask_BxT if segments_BxT is None else segments_BxT)
        x_BxTxD = norm(config.norm, config.norm_eps, config.dtype, "norm")(x_BxTxD)
        return LmOutput(self._logits(x_BxTxD), x_BxTxD, cache)

    def _context(
        self,
        length: int,
        attention_mask_BxT: AnyArray | None,
        segments_BxT: AnyArray | None,
        cache: KvCache | None,
    ) -> tuple[Array, _Context]:
        """The positions of the tokens, and what the layers need to know of them."""
        config = self.config
        slot, key_positions_BxS, mask = None, None, None
        # Without a cache the attention knows by itself what is causal, and can skip the rest.
        if segments_BxT is not None:
            positions_BxT = positions_in_segments(segments_BxT)
            mask = jnp.asarray(document_mask(segments_BxT, causal=False))[:, None]
        elif cache is None:
            positions_BxT = jnp.arange(length)[None] if attention_mask_BxT is None else positions_of(attention_mask_BxT)
            if attention_mask_BxT is not None:
                mask = (jnp.asarray(attention_mask_BxT) != 0)[:, None, None]
        else:
            slot = cache.length - length
            key_positions_BxS = cache.positions
            positions_BxT = jax.lax.dynamic_slice_in_dim(key_positions_BxS, slot, length, axis=1)
            mask = causal_mask(slot + jnp.arange(length), cache.is_token, cache.is_token.shape[1])
        key_positions_BxS = positions_BxT if key_positions_BxS is None else key_positions_BxS
        mixed = _mixed_windows(config) is not None
        if mask is not None and config.window is not None and not mixed:
            mask = mask & window_mask(positions_BxT, key_positions_BxS, config.window)
        turns = None if config.rotary is None else cos_sin(config.rotary, positions_BxT)
        positions = (positions_BxT, key_positions_BxS) if mixed else None
        return positions_BxT, _Context(mask, turns, positions, slot)

    def _logits(self, x_BxTxD: Array) -> Array:
        config = self.config
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        if config.tied:
            embedding_VxD = self.variables["params"]["embeddings"]["word"]["embedding"].astype(config.dtype)
            if x_BxTxD.shape[1] == 1:  # decoding: the large operand first, a third faster on CPU (benchmarks/decode.py)
                return product(embedding_VxD, x_BxTxD, (((1,), (2,)), ((), ()))).transpose(1, 2, 0)
            return product(x_BxTxD, embedding_VxD, (((2,), (1,)), ((), ())))
        head = Dense(config.vocab_size, use_bias=config.head_bias, dtype=config.dtype, dot_general=product, name="head")
        return head(x_BxTxD).astype(jnp.float32)


class Embeddings(nn.Module):
    """Word embeddings, and learned positions where queries and keys are not rotated."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, tokens_BxT: Array, positions_BxT: Array) -> Array:
        """Returns ``x_BxTxD``."""
        config = self.config
        x_BxTxD = nn.Embed(config.vocab_size, config.width, dtype=config.dtype, name="word")(tokens_BxT)
        if config.rotary is None:
            position = nn.Embed(config.max_positions, config.width, dtype=config.dtype, name="position")
            x_BxTxD += position(positions_BxT)
        return keep_divided(x_BxTxD)


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and added to its input, one after the other or side by side."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, carry: tuple[Array, tuple[Array, Array] | None], context: _Context, layer: _PerLayer
    ) -> tuple[tuple[Array, tuple[Array, Array] | None], None]:
        """Returns the next ``x_BxTxD`` and the buffers of keys and values, with this layer's part written."""
        config = self.config
        x_BxTxD, buffers = carry
        normed_BxTxD = norm(config.norm, config.norm_eps, config.dtype, "attention_norm")(x_BxTxD)
        mixed_BxTxD, buffers = SelfAttention(config, name="attention")(normed_BxTxD, buffers, context, layer)
        mlp = Mlp(
            *(config.width, config.mlp_width, config.activation),
            gated=config.gated,
            use_bias=config.mlp_bias,
            dtype=config.dtype,
            name="mlp",
        )
        mlp_norm = norm(config.norm, config.norm_eps, config.dtype, "mlp_norm")
        if config.parallel:
            return (keep_divided(x_BxTxD + mixed_BxTxD + mlp(mlp_norm(x_BxTxD))), buffers), None
        x_BxTxD += mixed_BxTxD
        return (keep_divided(x_BxTxD + mlp(mlp_norm(x_BxTxD))), buffers), None


class SelfAttention(nn.Module):
    """Causal attention, with key heads shared by query heads, over these tokens or all that the cache holds."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self, x_BxTxD: Array, buffers: tuple[Array, Array] | None, context: _Context, layer: _PerLayer
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Returns the next ``x_BxTxD`` and the buffers."""
        config = self.config
        q_BxTxHxK = self._heads(x_BxTxD, config.num_heads, "query")
        k_BxTxGxK = self._heads(x_BxTxD, config.key_heads, "key")
        v_BxTxGxK = self._heads(x_BxTxD, config.key_heads, "value")
        if config.query_norm:
            q_BxTxHxK = norm("rms", config.norm_eps, config.dtype, "query_norm")(q_BxTxHxK)
            k_BxTxGxK = norm("rms", config.norm_eps, config.dtype, "key_norm")(k_BxTxGxK)
        if context.cos_sin_BxTxF is not None:
            q_BxTxHxK, k_BxTxGxK = (rotate(x, context.cos_sin_BxTxF) for x in (q_BxTxHxK, k_BxTxGxK))
        if buffers is not None and context.slot is not None:
            keys, k_BxTxGxK = write_layer(buffers[0], k_BxTxGxK, layer.index, context.slot)
            values, v_BxTxGxK = write_layer(buffers[1], v_BxTxGxK, layer.index, context.slot)
            buffers = keys, values
        mask = context.mask_BxTxS
        if context.positions is not None and layer.window is not None:
            near = window_mask(*context.positions, layer.window)
            mask = near if mask is None else mask & near
        mixed_BxTxHxK = attend(
            q_BxTxHxK,
            k_BxTxGxK.astype(q_BxTxHxK.dtype),
            v_BxTxGxK.astype(q_BxTxHxK.dtype),
            mask=mask,
            scale=config.attention_scale,
            is_causal=context.slot is None,
            window=config.window if mask is None else None,
        )
        flat_BxTxHK = mixed_BxTxHxK.reshape(*x_BxTxD.shape[:2], -1)
        return Dense(config.width, use_bias=config.out_bias, dtype=config.dtype, name="out")(flat_BxTxHK), buffers

    def _heads(self, x_BxTxD: Array, heads: int, name: str) -> Array:
        config = self.config
        dense = Dense(heads * config.key_width, use_bias=config.query_bias, dtype=config.dtype, name=name)
        return dense(x_BxTxD).reshape(*x_BxTxD.shape[:2], heads, config.key_width)


def _mixed_windows(config: DecoderConfig) -> np.ndarray | None:
    """The window of each layer where layers differ, else None."""
    if config.window is None or not config.full_layers:
        return None
    is_full_L = np.isin(np.arange(config.num_layers), config.full_layers)
    return np.where(is_full_L, _NO_WINDOW, config.window).astype(np.int32)
