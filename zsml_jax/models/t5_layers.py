"""The layers of T5: attention to a sequence of its own or to the source, and an MLP, each behind a norm.

Name suffixes: ``B`` batch, ``T`` tokens of either stack, ``S`` tokens of the source or slots of keys,
``D`` model width, ``F`` hidden width of the MLP, ``H`` heads, ``K`` width of a head, ``L`` layers, ``V`` vocabulary.
"""

from typing import NamedTuple

import flax.linen as nn
import jax

from zsml_jax.models.attention import attend
from zsml_jax.models.dense import Dense
from zsml_jax.models.kv_cache import write_layer
from zsml_jax.models.mlp import Mlp
from zsml_jax.models.norms import norm
from zsml_jax.models.t5_config import T5Config
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import Array


class DecoderContext(NamedTuple):
    """What all decoder layers see alike; ``encoded`` or ``slot`` is None where the call has no source or no cache."""

    mask_BxTxS: Array
    bias_1xHxTxS: Array
    source_mask_Bx1x1xS: Array
    encoded_BxSxD: Array | None
    slot: Array | None


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each behind its norm and added to its input."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxTxD: Array, shared: tuple[Array | None, Array], per_layer: None) -> tuple[Array, None]:
        """Returns the next ``x_BxTxD``."""
        mask, bias = shared
        normed_BxTxD = t5_norm(self.config, "attention_norm")(x_BxTxD)
        attention = Attention(self.config, name="attention")
        keys, values = attention.keys_and_values(normed_BxTxD)
        x_BxTxD += attention(normed_BxTxD, keys, values, mask, bias)
        return keep_divided(x_BxTxD + _mlp(self.config)(t5_norm(self.config, "mlp_norm")(x_BxTxD))), None


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source and MLP, each behind its norm and added to its input."""

    config: T5Config

    @nn.compact
    def __call__(
        self, carry: tuple[Array, tuple[Array, ...] | None], context: DecoderContext, index: Array
    ) -> tuple[tuple[Array, tuple[Array, ...] | None], None]:
        """Returns the next ``x_BxTxD`` and the buffers, with this layer's part written."""
        config = self.config
        x_BxTxD, buffers = carry
        normed_BxTxD = t5_norm(config, "attention_norm")(x_BxTxD)
        attention = Attention(config, name="attention")
        own = attention.keys_and_values(normed_BxTxD)
        if buffers is not None and context.slot is not None:
            written = [write_layer(b, x, index, context.slot) for b, x in zip(buffers[:2], own, strict=True)]
            own = written[0][1], written[1][1]
            buffers = written[0][0], written[1][0], *buffers[2:]
        x_BxTxD += attention(normed_BxTxD, *own, context.mask_BxTxS, context.bias_1xHxTxS)

        normed_BxTxD = t5_norm(config, "cross_norm")(x_BxTxD)
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

        x_BxTxD += _mlp(config)(t5_norm(config, "mlp_norm")(x_BxTxD))
        return (keep_divided(x_BxTxD), buffers), None


class Attention(nn.Module):
    """Multi-head attention without scale and biases, to keys that may be of another sequence."""

    config: T5Config

    def setup(self):
        """Names the dense layers, which two methods share."""
        width, dtype = self.config.num_heads * self.config.key_width, self.config.dtype
        self.query, self.key, self.value = (Dense(width, use_bias=False, dtype=dtype) for _ in range(3))
        self.out = Dense(self.config.width, use_bias=False, dtype=dtype)

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


def t5_norm(config: T5Config, name: str) -> nn.Module:
    """Returns an RMS norm with the configuration's epsilon and dtype."""
    return norm("rms", config.norm_eps, config.dtype, name)


def _mlp(config: T5Config) -> Mlp:
    return Mlp(
        *(config.width, config.mlp_width, config.activation),
        gated=config.gated,
        use_bias=False,
        dtype=config.dtype,
        name="mlp",
    )
