"""T5: an encoder, and a decoder that also looks at what the encoder made of the source (Raffel et al., 2020).

Version 1.0 has a plain MLP and the word embedding as its head, version 1.1 a gated MLP (Shazeer, 2020) and a head of
its own. Positions enter as a bias on scores, one for each head and each bucket of distances, shared by all layers of a
stack; norms have no mean and no bias, scores no scale.

Name suffixes: ``B`` batch, ``T`` tokens of the decoder or of either stack, ``S`` tokens of the source or slots of keys,
``D`` model width, ``F`` hidden width of the MLP, ``H`` heads, ``K`` width of a head, ``L`` layers, ``V`` vocabulary.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from zsml_jax.models.activations import ACTIVATIONS
from zsml_jax.models.attention import attend
from zsml_jax.models.causal_mask import causal_mask
from zsml_jax.models.kv_cache import KvCache, init_cache, mark_tokens, write_layer
from zsml_jax.models.layer_stack import run_layers
from zsml_jax.models.norms import norm
from zsml_jax.models.t5_position import relative_buckets
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The static shape of a T5.

    Attributes:
      vocab_size: rows of the word embedding, which both stacks share.
      width: model width D.
      num_encoder_layers: layers of the encoder.
      num_layers: layers of the decoder.
      num_heads: attention heads.
      key_width: width of a head; heads times this need not be the model's width.
      mlp_width: hidden width F of the MLP.
      max_positions: the longest sequence that the model was made for, in tokens; nothing in it ends there.
      num_buckets: buckets of distances.
      max_distance: the distance from which on all share a bucket.
      gated: whether the MLP's activation gates a second projection.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      norm_eps: epsilon of the norms.
      tied: whether the head is the word embedding.
      scale_outputs: whether hidden states are divided by the root of the width before the head, as version 1.0 does.
      dtype: name of the dtype of activations; norms, softmax and logits are float32.
      remat: whether the backward pass computes each layer again instead of keeping what is in it.
      unroll: whether the layers are compiled one by one instead of as a loop.
    """

    vocab_size: int
    width: int
    num_encoder_layers: int
    num_layers: int
    num_heads: int
    key_width: int
    mlp_width: int
    max_positions: int = 512
    num_buckets: int = 32
    max_distance: int = 128
    gated: bool = False
    activation: str = "relu"
    norm_eps: float = 1e-6
    tied: bool = True
    scale_outputs: bool = True
    dtype: str = "float32"
    remat: bool = False
    unroll: bool = False

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}")
        if self.num_buckets < 4 or self.num_buckets % 4 or self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                "num_buckets must be a multiple of 4, and max_distance larger than half of it, "
                f"got {self.num_buckets} and {self.max_distance}"
            )

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_positions

    @property
    def key_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_heads


class T5Cache(NamedTuple):
    """What the decoder needs to go on, a pytree of fixed shapes.

    Attributes:
      own: keys and values of the decoder's tokens so far.
      keys: keys of the source for each decoder layer, ``(l, b, s, h, k)``.
      values: values of the source.
      is_token: true at tokens of the source, ``(b, s)``.
    """

    own: KvCache
    keys: Array
    values: Array
    is_token: Array


class T5Output(NamedTuple):
    """The output of T5, a pytree.

    Attributes:
      logits: scores of the decoder's next token at each position, ``(b, t, v)`` float32; None without decoder tokens.
      last: the decoder's normalised hidden states ``(b, t, d)``; the encoder's without decoder tokens.
      cache: what the next call needs to go on from here; None if the call was given none.
      encoded: the encoder's normalised hidden states ``(b, s, d)``; None if the call was given no source.
    """

    logits: Array | None
    last: Array
    cache: T5Cache | None
    encoded: Array | None


def init_t5_cache(config: T5Config, batch: int, length: int, source_length: int) -> T5Cache:
    """Returns an empty cache.

    The first call gets it together with the source, which is encoded once; the next get the decoder's tokens only::

        cache = init_t5_cache(config, batch, 1 + new_tokens, source_length)
        out = module.apply(variables, source_BxS, mask_BxS, decoder_tokens_BxT=start_Bx1, cache=cache)
        token_B = out.logits[:, -1].argmax(-1)
        out = module.apply(variables, decoder_tokens_BxT=token_B[:, None], cache=out.cache)

    Args:
      config: the model's configuration.
      batch: rows b.
      length: the decoder's tokens, one for each column ever fed.
      source_length: columns of the source.

    Returns:
      The cache.

    Raises:
      ValueError: if a size is not positive.
    """
    own, source = init_cache(config, batch, length), init_cache(config, batch, source_length)
    return T5Cache(own, source.keys, source.values, source.is_token)


class T5(nn.Module):
    """Both stacks with the head.

    Parameter paths are ``word/embedding``; for each stack ``encoder/relative/bucket/embedding``, for all of its layers
    at once ``encoder/layers/attention_norm/scale``, ``encoder/layers/attention/query/kernel`` (and ``key``, ``value``,
    ``out``), ``encoder/layers/mlp_norm/scale``, ``encoder/layers/mlp/up/kernel`` (and ``gate``, ``down``), and
    ``encoder/norm/scale``; the decoder has ``cross_norm`` and ``cross`` besides; and ``head/kernel``.
    """

    config: T5Config

    @nn.compact
    def __call__(
        self,
        tokens_BxS: Int[AnyArray, "b s"] | None = None,
        attention_mask_BxS: Shaped[AnyArray, "b s"] | None = None,
        *,
        decoder_tokens_BxT: Int[AnyArray, "b t"] | None = None,
        decoder_mask_BxT: Shaped[AnyArray, "b t"] | None = None,
        cache: T5Cache | None = None,
    ) -> T5Output:
        """Encodes a source and scores the decoder's next tokens.

        Args:
          tokens_BxS: token ids of the source; None if ``cache`` holds it already.
          attention_mask_BxS: non-zero at the source's tokens, 0 at padding on either side; all are tokens if None.
          decoder_tokens_BxT: the decoder's token ids, which begin with the start token; None to encode only.
          decoder_mask_BxT: non-zero at the decoder's tokens, 0 at padding on either side; all are tokens if None.
          cache: from :func:`init_t5_cache` or the call before.

        Returns:
          Logits, hidden states, and the cache with these tokens in it if one was given.

        Raises:
          ValueError: if there is neither a source nor a cache, or the cache does not fit.
        """
        config = self.config
        word = nn.Embed(config.vocab_size, config.width, dtype=config.dtype, name="word")
        if tokens_BxS is None:
            if cache is None or decoder_tokens_BxT is None:
                raise ValueError("tokens must be given where there is no cache with a source, or nothing to decode")
            encoded_BxSxD, is_source_BxS = None, cache.is_token
        else:
            encoded_BxSxD = Encoder(config, name="encoder")(word(jnp.asarray(tokens_BxS)), attention_mask_BxS)
            if decoder_tokens_BxT is None:
                return T5Output(None, encoded_BxSxD, None, encoded_BxSxD)
            is_source_BxS = np.ones(tokens_BxS.shape, bool) if attention_mask_BxS is None else attention_mask_BxS != 0
            is_source_BxS = jnp.asarray(is_source_BxS)
            if cache is not None:
                if cache.is_token.shape != tokens_BxS.shape:
                    raise ValueError(f"cache must hold a source {tokens_BxS.shape}, got {cache.is_token.shape}")
                cache = cache._replace(is_token=is_source_BxS)
        x_BxTxD = word(jnp.asarray(decoder_tokens_BxT))
        decoder = Decoder(config, name="decoder")
        x_BxTxD, cache = decoder(x_BxTxD, decoder_mask_BxT, encoded_BxSxD, is_source_BxS, cache)
        scaled_BxTxD = x_BxTxD * config.width**-0.5 if config.scale_outputs else x_BxTxD
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        if config.tied:
            embedding_VxD = self.variables["params"]["word"]["embedding"].astype(config.dtype)
            logits_BxTxV = product(scaled_BxTxD, embedding_VxD, (((2,), (1,)), ((), ())))
        else:
            head = nn.Dense(config.vocab_size, use_bias=False, dtype=config.dtype, dot_general=product, name="head")
            logits_BxTxV = head(scaled_BxTxD).astype(jnp.float32)
        return T5Output(logits_BxTxV, x_BxTxD, cache, encoded_BxSxD)


class Encoder(nn.Module):
    """Layers that look both ways."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxTxD: Array, attention_mask_BxT: AnyArray | None) -> Array:
        """Returns the normalised ``x_BxTxD``."""
        config = self.config
        x_BxTxD = keep_divided(x_BxTxD)
        slots_T = np.arange(x_BxTxD.shape[1])
        bias_1xHxTxT = RelativeBias(config, bidirectional=True, name="relative")(slots_T, slots_T)
        mask_Bx1x1xT = None if attention_mask_BxT is None else jnp.asarray(attention_mask_BxT != 0)[:, None, None, :]
        shared = mask_Bx1x1xT, bias_1xHxTxT
        x_BxTxD = run_layers(EncoderLayer, config, x_BxTxD, shared, None, num_layers=config.num_encoder_layers)
        return _norm(config, "norm")(x_BxTxD)


class _Context(NamedTuple):
    """What all decoder layers see alike; ``encoded`` or ``slot`` is None where the call has no source or no cache."""

    mask_BxTxS: Array
    bias_1xHxTxS: Array
    source_mask_Bx1x1xS: Array
    encoded_BxSxD: Array | None
    slot: Array | None


class Decoder(nn.Module):
    """Layers that look at the past and at the source."""

    config: T5Config

    @nn.compact
    def __call__(
        self,
        x_BxTxD: Array,
        mask_BxT: AnyArray | None,
        encoded_BxSxD: Array | None,
        is_source_BxS: Array,
        cache: T5Cache | None,
    ) -> tuple[Array, T5Cache | None]:
        """Returns the normalised ``x_BxTxD`` and the cache."""
        config = self.config
        length = x_BxTxD.shape[1]
        slot = buffers = own = None
        slots_T, keys_S, is_token_BxS = np.arange(length), np.arange(length), mask_BxT
        if cache is not None:
            is_token_BxT = np.ones(x_BxTxD.shape[:2], bool) if mask_BxT is None else mask_BxT != 0
            own = mark_tokens(cache.own, is_token_BxT)
            slot, is_token_BxS = own.length - length, own.is_token
            slots_T, keys_S = slot + jnp.arange(length), np.arange(own.is_token.shape[1])
            buffers = own.keys, own.values, cache.keys, cache.values
        context = _Context(
            causal_mask(slots_T, is_token_BxS, len(keys_S)),
            RelativeBias(config, bidirectional=False, name="relative")(slots_T, keys_S),
            is_source_BxS[:, None, None, :],
            encoded_BxSxD,
            slot,
        )
        indices_L = np.arange(config.num_layers, dtype=np.int32)
        carry = keep_divided(x_BxTxD), buffers
        x_BxTxD, buffers = run_layers(DecoderLayer, config, carry, context, indices_L, num_layers=config.num_layers)
        if cache is not None and own is not None and buffers is not None:
            own = own._replace(keys=buffers[0], values=buffers[1])
            cache = cache._replace(own=own, keys=buffers[2], values=buffers[3])
        return _norm(config, "norm")(x_BxTxD), cache


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each behind its norm and added to its input."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxTxD: Array, shared: tuple[Array | None, Array], per_layer: None) -> tuple[Array, None]:
        """Returns the next ``x_BxTxD``."""
        mask, bias = shared
        normed_BxTxD = _norm(self.config, "attention_norm")(x_BxTxD)
        attention = Attention(self.config, name="attention")
        keys, values = attention.keys_and_values(normed_BxTxD)
        x_BxTxD += attention(normed_BxTxD, keys, values, mask, bias)
        return keep_divided(x_BxTxD + Mlp(self.config, name="mlp")(_norm(self.config, "mlp_norm")(x_BxTxD))), None


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source and MLP, each behind its norm and added to its input."""

    config: T5Config

    @nn.compact
    def __call__(
        self, carry: tuple[Array, tuple[Array, ...] | None], context: _Context, index: Array
    ) -> tuple[tuple[Array, tuple[Array, ...] | None], None]:
        """Returns the next ``x_BxTxD`` and the buffers, with this layer's part written."""
        config = self.config
        x_BxTxD, buffers = carry
        normed_BxTxD = _norm(config, "attention_norm")(x_BxTxD)
        attention = Attention(config, name="attention")
        own = attention.keys_and_values(normed_BxTxD)
        if buffers is not None and context.slot is not None:
            written = [write_layer(b, x, index, context.slot) for b, x in zip(buffers[:2], own, strict=True)]
            own = written[0][1], written[1][1]
            buffers = written[0][0], written[1][0], *buffers[2:]
        x_BxTxD += attention(normed_BxTxD, *own, context.mask_BxTxS, context.bias_1xHxTxS)

        normed_BxTxD = _norm(config, "cross_norm")(x_BxTxD)
        cross = Attention(config, name="cross")
        if context.encoded_BxSxD is not None:
            keys, values = cross.keys_and_values(context.encoded_BxSxD)
            if buffers is not None:
                keys_of_all, _ = write_layer(buffers[2], keys, index, 0)
                values_of_all, _ = write_layer(buffers[3], values, index, 0)
                buffers = *buffers[:2], keys_of_all, values_of_all
        else:
            keys, values = (jax.lax.dynamic_index_in_dim(b, index, keepdims=False) for b in (buffers or ())[2:])
        x_BxTxD += cross(normed_BxTxD, keys, values, context.source_mask_Bx1x1xS, None)

        x_BxTxD += Mlp(config, name="mlp")(_norm(config, "mlp_norm")(x_BxTxD))
        return (keep_divided(x_BxTxD), buffers), None


class Attention(nn.Module):
    """Multi-head attention without scale and biases, to keys that may be of another sequence."""

    config: T5Config

    def setup(self):
        """Names the dense layers, which two methods share."""
        width, dtype = self.config.num_heads * self.config.key_width, self.config.dtype
        self.query, self.key, self.value = (nn.Dense(width, use_bias=False, dtype=dtype) for _ in range(3))
        self.out = nn.Dense(self.config.width, use_bias=False, dtype=dtype)

    def __call__(
        self, x_BxTxD: Array, k_BxSxHxK: Array, v_BxSxHxK: Array, mask: Array | None, bias_1xHxTxS: Array | None
    ) -> Array:
        """Returns the next ``x_BxTxD``; keys where the mask is false are not looked at."""
        q_BxTxHxK = self._heads(self.query(x_BxTxD))
        k_BxSxHxK, v_BxSxHxK = (x.astype(q_BxTxHxK.dtype) for x in (k_BxSxHxK, v_BxSxHxK))
        mixed_BxTxHxK = attend(q_BxTxHxK, k_BxSxHxK, v_BxSxHxK, mask=mask, bias=bias_1xHxTxS, scale=1.0)
        return self.out(mixed_BxTxHxK.reshape(*x_BxTxD.shape[:2], -1))

    def keys_and_values(self, x_BxSxD: Array) -> tuple[Array, Array]:
        """Returns keys and values ``(b, s, h, k)`` of a sequence."""
        return self._heads(self.key(x_BxSxD)), self._heads(self.value(x_BxSxD))

    def _heads(self, x_BxTxHK: Array) -> Array:
        return x_BxTxHK.reshape(*x_BxTxHK.shape[:2], self.config.num_heads, self.config.key_width)


class Mlp(nn.Module):
    """Two dense layers around the activation, or around its product with a third."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        """Returns ``x_BxTxD``."""
        config = self.config
        dense = functools.partial(nn.Dense, use_bias=False, dtype=config.dtype)
        h_BxTxF = dense(config.mlp_width, name="up")(x_BxTxD)
        if config.gated:
            h_BxTxF *= ACTIVATIONS[config.activation](dense(config.mlp_width, name="gate")(x_BxTxD))
        else:
            h_BxTxF = ACTIVATIONS[config.activation](h_BxTxF)
        return dense(config.width, name="down")(h_BxTxF)


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


def _norm(config: T5Config, name: str) -> nn.Module:
    return norm("rms", config.norm_eps, config.dtype, name)
