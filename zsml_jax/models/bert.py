"""The BERT encoder and its siblings DistilBERT, RoBERTa and ALBERT: one Linen module, a frozen config.

Devlin et al. (2019), Sanh et al. (2019), Liu et al. (2019) and Lan et al. (2020). They differ in the ways that
:class:`BertConfig` names: how positions are counted, whether there are token types, a pooler and a head for masked
words, how wide the embeddings are, and whether layers share their parameters.

Name suffixes: ``B`` batch, ``T`` tokens, ``N`` = B T, ``D`` model width, ``E`` width of the embeddings, ``F`` hidden
width of the MLP, ``H`` heads, ``K`` width of a head, ``V`` vocabulary.
"""

import dataclasses
import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Int, Shaped

from zsml_jax.models.activations import ACTIVATIONS
from zsml_jax.models.attention import attend
from zsml_jax.models.causal_mask import check_mask
from zsml_jax.models.config_checks import check_activation, check_dtype, check_heads, check_sizes
from zsml_jax.models.dense import Dense
from zsml_jax.models.norms import norm
from zsml_jax.train.activations import keep_divided
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
      embedding_width: width of the embeddings, which ALBERT factorises: a dense layer takes them to the model's width;
        None if they have that already.
      num_groups: groups of consecutive layers that share their parameters; None if each layer has its own.
      masked_lm: whether there is a head that predicts masked words.
      tied: whether that head's decoder is the word embedding.
      head_activation: the head's activation; RoBERTa's is not that of its layers.
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
    embedding_width: int | None = None
    num_groups: int | None = None
    masked_lm: bool = False
    tied: bool = True
    head_activation: str = "gelu"
    dtype: str = "float32"

    def __post_init__(self):
        check_sizes(self, "vocab_size", "width", "num_layers", "num_heads", "mlp_width", "max_positions")
        check_sizes(self, *(name for name in ("embedding_width", "num_groups") if getattr(self, name) is not None))
        check_activation(self.activation)
        check_activation(self.head_activation, field="head_activation")
        check_heads(self.width, self.num_heads)
        check_dtype(self.dtype)
        if self.num_groups is not None and self.num_groups > self.num_layers:
            raise ValueError(f"num_groups must be at most {self.num_layers}, the layers, got {self.num_groups}")

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens."""
        return self.max_positions - (0 if self.position_offset is None else self.position_offset + 1)


class BertOutput(NamedTuple):
    """What the encoder computes.

    Attributes:
      hidden_states: the embeddings and the output of each layer, ``l + 1`` arrays ``(b, t, d)``.
      pooled: the pooler's output ``(b, d)``, None without a pooler.
      logits: scores of the word at each position ``(b, t, v)``, float32; None without a head for masked words.
    """

    hidden_states: tuple[Array, ...]
    pooled: Array | None
    logits: Array | None = None

    @property
    def last(self) -> Array:
        """The last layer's output, ``(b, t, d)``."""
        return self.hidden_states[-1]


class Bert(nn.Module):
    """The encoder; parameter paths are ``embeddings/...``, ``layer_0/attention/query/kernel``, ... , ``pooler/...``.

    Layers that share their parameters are one submodule, called several times: ALBERT has a ``layer_0`` only. The head
    for masked words is ``head/dense/kernel``, ``head/norm/scale`` and ``head/bias``, with ``head/decoder/kernel`` if it
    is untied. All layers go from ``x_BxTxD`` to ``x_BxTxD``, so that they can also be scanned over stacked parameters.
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
          Hidden states of every layer, the pooled first token, and the scores of words.

        Raises:
          ValueError: if there are more tokens than positions, or masks and token types have another shape.
        """
        config = self.config
        check_mask(attention_mask_BxT, tokens_BxT)
        check_mask(token_types_BxT, tokens_BxT, "token_types")
        length, limit = tokens_BxT.shape[1], config.max_length
        if length > limit:
            raise ValueError(f"tokens must have at most {limit} columns (positions of the model), got {length}")
        mask_Bx1x1xT = None
        if attention_mask_BxT is not None:
            mask_Bx1x1xT = jnp.asarray(attention_mask_BxT != 0)[:, None, None, :]
        if token_types_BxT is None:
            token_types_BxT = jnp.zeros(tokens_BxT.shape, jnp.int32)
        x_BxTxD = Embeddings(config, name="embeddings")(jnp.asarray(tokens_BxT), jnp.asarray(token_types_BxT))
        hidden_states = [x_BxTxD]
        groups = config.num_layers if config.num_groups is None else config.num_groups
        layers = [EncoderLayer(config, name=f"layer_{i}") for i in range(groups)]
        for i in range(config.num_layers):
            x_BxTxD = layers[i * groups // config.num_layers](x_BxTxD, mask_Bx1x1xT)
            hidden_states.append(x_BxTxD)
        pooled_BxD = logits_BxTxV = None
        if config.pooler:
            pooled_BxD = jnp.tanh(_dense(config, config.width, "pooler")(x_BxTxD[:, 0]))
        if config.masked_lm:
            embedding_VxE = self.variables["params"]["embeddings"]["word"]["embedding"]
            logits_BxTxV = MaskedLmHead(config, name="head")(x_BxTxD, embedding_VxE)
        return BertOutput(tuple(hidden_states), pooled_BxD, logits_BxTxV)


class Embeddings(nn.Module):
    """The normalised sum of word, position and token type embeddings, widened where it is factorised."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens_BxT: Array, token_types_BxT: Array) -> Array:
        """Returns ``x_BxTxD``."""
        config = self.config
        embed = functools.partial(nn.Embed, features=config.embedding_width or config.width, dtype=config.dtype)
        x_BxTxE = embed(config.vocab_size, name="word")(tokens_BxT)
        positions_BxT = _positions(tokens_BxT, config.position_offset)
        x_BxTxE += embed(config.max_positions, name="position")(positions_BxT)
        if config.type_vocab_size:
            x_BxTxE += embed(config.type_vocab_size, name="token_type")(token_types_BxT)
        x_BxTxE = _norm(config, "norm")(keep_divided(x_BxTxE))
        return x_BxTxE if config.embedding_width is None else _dense(config, config.width, "widen")(x_BxTxE)


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each followed by its residual sum and layer norm."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask_Bx1x1xT: Array | None) -> Array:
        """Returns the next ``x_BxTxD``; keys where the mask is false are not looked at."""
        config = self.config
        mixed_BxTxD = SelfAttention(config, name="attention")(x_BxTxD, mask_Bx1x1xT)
        x_BxTxD = _norm(config, "attention_norm")(x_BxTxD + mixed_BxTxD)
        return keep_divided(_norm(config, "mlp_norm")(x_BxTxD + Mlp(config, name="mlp")(x_BxTxD)))


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


class MaskedLmHead(nn.Module):
    """A dense layer, activated and normalised, and its products with all word embeddings, or with a kernel."""

    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, embedding_VxE: Array) -> Array:
        """Returns ``logits_BxTxV``."""
        config = self.config
        x_BxTxE = _dense(config, config.embedding_width or config.width, "dense")(x_BxTxD)
        x_BxTxE = _norm(config, "norm")(ACTIVATIONS[config.head_activation](x_BxTxE))
        if config.tied:
            logits_BxTxV = jnp.matmul(x_BxTxE, embedding_VxE.T.astype(config.dtype), preferred_element_type=jnp.float32)
        else:
            product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
            decoder = Dense(config.vocab_size, use_bias=False, dtype=config.dtype, dot_general=product, name="decoder")
            logits_BxTxV = decoder(x_BxTxE).astype(jnp.float32)
        return logits_BxTxV + self.param("bias", nn.initializers.zeros, (config.vocab_size,), jnp.float32)


def _positions(tokens_BxT: Array, offset: int | None) -> Array:
    if offset is None:
        return jnp.broadcast_to(jnp.arange(tokens_BxT.shape[1]), tokens_BxT.shape)
    is_token_BxT = (tokens_BxT != offset).astype(jnp.int32)
    return offset + jnp.cumsum(is_token_BxT, axis=1) * is_token_BxT


def _dense(config: BertConfig, features: int, name: str) -> Dense:
    return Dense(features, dtype=jnp.dtype(config.dtype), name=name)


def _norm(config: BertConfig, name: str) -> nn.Module:
    return norm("layer", config.norm_eps, jnp.dtype(config.dtype), name)
