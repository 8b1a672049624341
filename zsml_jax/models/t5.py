"""T5: an encoder, and a decoder that also looks at what the encoder made of the source (Raffel et al., 2020).

Version 1.0 has a plain MLP and the word embedding as its head, version 1.1 a gated MLP (Shazeer, 2020) and a head of
its own. Positions enter as a bias on scores, one for each head and each bucket of distances, shared by all layers of a
stack; norms have no mean and no bias, scores no scale.

Name suffixes: ``B`` batch, ``T`` tokens of the decoder or of either stack, ``S`` tokens of the source or slots of keys,
``D`` model width, ``F`` hidden width of the MLP, ``H`` heads, ``K`` width of a head, ``L`` layers, ``V`` vocabulary.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from zsml_jax.models.causal_mask import causal_mask, check_mask
from zsml_jax.models.dense import Dense
from zsml_jax.models.kv_cache import KvCache, init_cache, mark_tokens
from zsml_jax.models.layer_stack import run_layers
from zsml_jax.models.t5_config import T5Config
from zsml_jax.models.t5_layers import DecoderContext, DecoderLayer, EncoderLayer, t5_norm
from zsml_jax.models.t5_position import RelativeBias
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


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
          ValueError: if there is neither a source nor a cache, or masks or the cache do not fit.
        """
        config = self.config
        for mask, tokens, name in (
            (attention_mask_BxS, tokens_BxS, "attention_mask"),
            (decoder_mask_BxT, decoder_tokens_BxT, "decoder_mask"),
        ):
            if tokens is not None:
                check_mask(mask, tokens, name)
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
            head = Dense(config.vocab_size, use_bias=False, dtype=config.dtype, dot_general=product, name="head")
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
        x_BxTxD, _ = run_layers(EncoderLayer, config, x_BxTxD, shared, None, num_layers=config.num_encoder_layers)
        return t5_norm(config, "norm")(x_BxTxD)


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
        context = DecoderContext(
            causal_mask(slots_T, is_token_BxS, len(keys_S)),
            RelativeBias(config, bidirectional=False, name="relative")(slots_T, keys_S),
            is_source_BxS[:, None, None, :],
            encoded_BxSxD,
            slot,
        )
        indices_L = np.arange(config.num_layers, dtype=np.int32)
        carry = keep_divided(x_BxTxD), buffers
        (x_BxTxD, buffers), _ = run_layers(
            DecoderLayer, config, carry, context, indices_L, num_layers=config.num_layers
        )
        if cache is not None and own is not None and buffers is not None:
            own = own._replace(keys=buffers[0], values=buffers[1])
            cache = cache._replace(own=own, keys=buffers[2], values=buffers[3])
        return t5_norm(config, "norm")(x_BxTxD), cache
