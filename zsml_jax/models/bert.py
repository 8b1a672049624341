"""The BERT encoder and its siblings DistilBERT and RoBERTa: one Linen module, a frozen config.

Devlin et al. (2019), Sanh et al. (2019) and Liu et al. (2019). The three differ in the ways that :class:`BertConfig`
names: how positions are counted, whether there are token types, and whether there is a pooler.

Name suffixes: ``B`` batch, ``T`` tokens, ``N`` = B T, ``D`` model width, ``F`` hidden width of the MLP, ``H`` heads,
``K`` width of a head.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Int, Shaped

from zsml_jax.models.activations import ACTIVATIONS
from zsml_jax.models.attention import attend
from zsml_jax.models.norms import norm
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The static shape of an encoder.

    Attributes:
      vocab_size: rows of the word embedding.
      width: model width D.
      num_layers: number of layers.
      num_heads: attention heads; they divide the width.
      mlp_width: hidden width F of the MLP.
      max_positions: rows of the position embedding.
      position_offset: None counts positions from 0 at every token; RoBERTa counts from ``position_offset + 1`` and only
        tokens that are not padding, which itself sits at position ``position_offset`` (its padding id).
      type_vocab_size: rows of the token type embedding; 0 if the model has none.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      norm_eps: epsilon of the layer norms.
      pooler: whether there is a tanh layer over the first token.
      dtype: name of the dtype of activations; norms and softmax accumulate in float32.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    max_positions: int
    position_offset: int | None = None
    type_vocab_size: int = 2
    activation: str = "gelu"
    norm_eps: float = 1e-12
    pooler: bool = True
    dtype: str = "float32"

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_positions - (0 if self.position_offset is None else self.position_offset + 1)


class BertOutput(NamedTuple):
    """What the encoder computes.

    Attributes:
      hidden_states: the embeddings and the output of each layer, ``l + 1`` arrays ``(b, t, d)``.
      pooled: the pooler's output ``(b, d)``, None without a pooler.
    """

    hidden_states: tuple[Array, ...]
    pooled: Array | None

    @property
    def last(self) -> Array:
        """The last layer's output, ``(b, t, d)``."""
        return self.hidden_states[-1]


class Bert(nn.Module):
    """The encoder; parameter paths are ``embeddings/...``, ``layer_0/attention/query/kernel``, ... , ``pooler/...``.

    The layers are alike, from ``x_BxTxD`` to ``x_BxTxD``, so that they can also be scanned over stacked parameters.
    """

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        tokens_BxT: Int[AnyArray, "b t"],
        attention_mask_BxT: Shaped[AnyArray, "b t"] | None = None,
        token_types_BxT: Int[AnyArray, "b t"] | None = None,
    ) -> BertOutput:
        """Encodes tokens.

        Args:
          tokens_BxT: token ids.
          attention_mask_BxT: non-zero at tokens, 0 at padding; all are tokens if None.
          token_types_BxT: ids of the segments; all 0 if None.

        Returns:
          Hidden states of every layer, and the pooled first token.
        """
        length, limit = tokens_BxT.shape[1], self.config.max_length
        if length > limit:
            raise ValueError(f"tokens must have at most {limit} columns (positions of the model), got {length}")
        mask_Bx1x1xT = None
        if attention_mask_BxT is not None:
            mask_Bx1x1xT = jnp.asarray(attention_mask_BxT != 0)[:, None, None, :]
        if token_types_BxT is None:
            token_types_BxT = jnp.zeros(tokens_BxT.shape, jnp.int32)
        embeddings = Embeddings(self.config, name="embeddings")
        x_BxTxD = embeddings(jnp.asarray(tokens_BxT), jnp.asarray(token_types_BxT))
        hidden_states = [x_BxTxD]
        for i in range(self.config.num_layers):
            x_BxTxD = EncoderLayer(self.config, name=f"layer_{i}")(x_BxTxD, mask_Bx1x1xT)
            hidden_states.append(x_BxTxD)
        pooled_BxD = None
        if self.config.pooler:
            pooled_BxD = jnp.tanh(_dense(self.config, self.config.width, "pooler")(x_BxTxD[:, 0]))
        return BertOutput(tuple(hidden_states), pooled_BxD)


class Embeddings(nn.Module):
    """The normalised sum of word, position and token type embeddings."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens_BxT: Array, token_types_BxT: Array) -> Array:
        """Returns ``x_BxTxD``."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        x_BxTxD = nn.Embed(config.vocab_size, config.width, dtype=dtype, name="word")(tokens_BxT)
        positions_BxT = _positions(tokens_BxT, config.position_offset)
        x_BxTxD += nn.Embed(config.max_positions, config.width, dtype=dtype, name="position")(positions_BxT)
        if config.type_vocab_size:
            x_BxTxD += nn.Embed(config.type_vocab_size, config.width, dtype=dtype, name="token_type")(token_types_BxT)
        return _norm(config, "norm")(x_BxTxD)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each followed by its residual sum and layer norm."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask_Bx1x1xT: Array | None) -> Array:
        """Returns the next ``x_BxTxD``; keys where the mask is false are not looked at."""
        config = self.config
        mixed_BxTxD = SelfAttention(config, name="attention")(x_BxTxD, mask_Bx1x1xT)
        x_BxTxD = _norm(config, "attention_norm")(x_BxTxD + mixed_BxTxD)
        return _norm(config, "mlp_norm")(x_BxTxD + Mlp(config, name="mlp")(x_BxTxD))


class SelfAttention(nn.Module):
    """Bidirectional multi-head self-attention."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask_Bx1x1xT: Array | None) -> Array:
        """Returns the next ``x_BxTxD``; keys where the mask is false are not looked at."""
        config = self.config
        heads = (*x_BxTxD.shape[:2], config.num_heads, config.width // config.num_heads)
        q_BxTxHxK = _dense(config, config.width, "query")(x_BxTxD).reshape(heads)
        k_BxTxHxK = _dense(config, config.width, "key")(x_BxTxD).reshape(heads)
        v_BxTxHxK = _dense(config, config.width, "value")(x_BxTxD).reshape(heads)
        mixed_BxTxHxK = attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, mask=mask_Bx1x1xT)
        return _dense(config, config.width, "out")(mixed_BxTxHxK.reshape(x_BxTxD.shape))


class Mlp(nn.Module):
    """Two dense layers around the activation."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        """Returns ``x_BxTxD``."""
        h_BxTxF = _dense(self.config, self.config.mlp_width, "up")(x_BxTxD)
        # The shape is free here, and XLA's CPU loop over a matrix takes half the time of the one over a cube.
        h_NxF = ACTIVATIONS[self.config.activation](h_BxTxF.reshape(-1, self.config.mlp_width))
        return _dense(self.config, self.config.width, "down")(h_NxF.reshape(h_BxTxF.shape))


def _positions(tokens_BxT: Array, offset: int | None) -> Array:
    if offset is None:
        return jnp.broadcast_to(jnp.arange(tokens_BxT.shape[1]), tokens_BxT.shape)
    is_token_BxT = (tokens_BxT != offset).astype(jnp.int32)
    return offset + jnp.cumsum(is_token_BxT, axis=1) * is_token_BxT


def _dense(config: BertConfig, features: int, name: str) -> nn.Dense:
    return nn.Dense(features, dtype=jnp.dtype(config.dtype), name=name)


def _norm(config: BertConfig, name: str) -> nn.Module:
    return norm("layer", config.norm_eps, jnp.dtype(config.dtype), name)
