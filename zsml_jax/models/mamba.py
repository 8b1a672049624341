"""Mamba, the language model without attention: one Linen module with a frozen config.

Gu and Dao (2023), "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", section 3.4 and figure 3.

Name suffixes: ``B`` batch, ``T`` tokens, ``D`` model width, ``E`` inner width, ``S`` state, ``K`` width of the
convolution, ``W`` = K - 1, ``R`` rank of the step sizes, ``L`` layers, ``V`` vocabulary.
"""

import dataclasses
import functools
import math
import sys
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Float32, Int, Shaped

from zsml_jax.models.activations import ACTIVATIONS
from zsml_jax.models.causal_conv import causal_conv
from zsml_jax.models.causal_mask import check_mask, last_tokens
from zsml_jax.models.config_checks import check_activation, check_dtype, check_sizes
from zsml_jax.models.dense import Dense
from zsml_jax.models.layer_stack import Remat, run_layers
from zsml_jax.models.outputs import LmOutput
from zsml_jax.models.selective_scan import selective_scan
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array, Key

_MIN_STEP, _MAX_STEP = 1e-3, 1e-1
#: torch's own initialisation of dense layers, uniform within fan_in ** -0.5, which Mamba was trained from.
_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class MambaConfig:
    """The static shape of a Mamba.

    Attributes:
      vocab_size: rows of the word embedding.
      width: model width D.
      num_layers: number of layers.
      state_size: numbers S that each channel remembers.
      expand: inner width E in model widths.
      conv_width: tokens K that the convolution sees, the present one included.
      step_rank: rank R of the step sizes; ``width / 16`` rounded up if None.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`, after the convolution; the gate is SiLU in
        any case.
      norm_eps: epsilon of the RMS norms.
      dense_bias: whether the projections in and out of a layer have a bias.
      conv_bias: whether the convolution has a bias.
      residual_float32: whether the residual sums are float32 whatever the activations are.
      tied: whether the head is the word embedding.
      dtype: name of the dtype of activations; norms, step sizes, states and logits are float32.
      chunk: steps between the states that the scan keeps for the gradient.
      remat: what the backward pass computes again instead of keeping it, see :data:`.layer_stack.Remat`.
      unroll: whether the layers are compiled one by one instead of as a loop.
    """

    vocab_size: int
    width: int
    num_layers: int
    state_size: int = 16
    expand: int = 2
    conv_width: int = 4
    step_rank: int | None = None
    activation: str = "silu"
    norm_eps: float = 1e-5
    dense_bias: bool = False
    conv_bias: bool = True
    residual_float32: bool = True
    tied: bool = True
    dtype: str = "float32"
    chunk: int = 32
    remat: Remat = False
    unroll: bool = False

    def __post_init__(self):
        check_sizes(self, "vocab_size", "width", "num_layers", "state_size", "expand", "conv_width", "rank", "chunk")
        check_activation(self.activation)
        check_dtype(self.dtype)

    @property
    def inner_width(self) -> int:
        """Channels E of the convolution and the scan."""
        return self.expand * self.width

    @property
    def rank(self) -> int:
        """Rank R of the step sizes."""
        return math.ceil(self.width / 16) if self.step_rank is None else self.step_rank

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens: there is no limit."""
        return sys.maxsize


class MambaCache(NamedTuple):
    """What a Mamba remembers of the tokens so far, a pytree of fixed shapes that does not grow with their number.

    Attributes:
      window: inputs of the convolution, ``(l, b, k - 1, e)``.
      state: states of the scan, ``(l, b, s, e)``, float32.
    """

    window: Float[Array, "*l b w e"]
    state: Float32[Array, "*l b s e"]


def init_mamba_cache(config: MambaConfig, batch: int) -> MambaCache:
    """Returns the cache before the first token.

    Args:
      config: the model's configuration.
      batch: rows b.

    Raises:
      ValueError: if ``batch`` is not positive.
    """
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    rows = (config.num_layers, batch)
    window = jnp.zeros((*rows, config.conv_width - 1, config.inner_width), config.dtype)
    return MambaCache(window, jnp.zeros((*rows, config.state_size, config.inner_width), jnp.float32))


class Mamba(nn.Module):
    """The model with its head.

    Parameter paths are ``embeddings/word/embedding``, then for all layers at once ``layers/norm/scale`` and
    ``layers/mixer/in_proj/kernel`` (and ``conv_kernel``, ``conv_bias``, ``x_proj``, ``dt_proj``, ``A_log``, ``D``,
    ``out_proj``), and ``norm/scale`` and, where the head is not tied, ``head/kernel``.
    """

    config: MambaConfig

    @property
    def max_tokens(self) -> None:
        """There is no most tokens of a row."""
        return None

    def init_cache(self, batch: int, length: int) -> MambaCache:
        """Returns an empty cache, whose size does not grow with ``length``, see :func:`init_mamba_cache`."""
        del length
        return init_mamba_cache(self.config, batch)

    @nn.compact
    def __call__(
        self,
        tokens_BxT: Int[AnyArray, "b t"],
        attention_mask_BxT: Shaped[AnyArray, "b t"] | None = None,
        *,
        cache: MambaCache | None = None,
        only_last: bool = False,
    ) -> LmOutput:
        """Scores the next token at each position.

        Args:
          tokens_BxT: token ids.
          attention_mask_BxT: non-zero at tokens, 0 at padding, which may be on either side; all are tokens if None.
          cache: the tokens before these, from :func:`init_mamba_cache` or the call before.
          only_last: whether to compute logits at the last token of each row only, as ``(b, 1, v)``.

        Returns:
          Logits, last hidden states, and the cache with these tokens in it if one was given. A row that is all
          padding leaves its part of the cache as it is.

        Raises:
          ValueError: if the mask has another shape, or the cache another number of rows.
        """
        config = self.config
        check_mask(attention_mask_BxT, tokens_BxT)
        if cache is not None and cache.state.shape[-3] != tokens_BxT.shape[0]:
            raise ValueError(f"tokens must have {cache.state.shape[-3]} rows, as the cache, got {tokens_BxT.shape[0]}")
        is_token_BxT = None if attention_mask_BxT is None else jnp.asarray(attention_mask_BxT) != 0
        x_BxTxD = Embeddings(config, name="embeddings")(jnp.asarray(tokens_BxT))
        x_BxTxD = x_BxTxD.astype(jnp.float32 if config.residual_float32 else config.dtype)
        x_BxTxD, cache = run_layers(MambaLayer, config, x_BxTxD, is_token_BxT, cache, num_layers=config.num_layers)
        if only_last:
            x_BxTxD = last_tokens(x_BxTxD, is_token_BxT)
        x_BxTxD = _norm(config)(x_BxTxD)
        return LmOutput(self._logits(x_BxTxD), x_BxTxD, cache)

    def _logits(self, x_BxTxD: Array) -> Array:
        config = self.config
        if config.tied:
            kernel_DxV = self.variables["params"]["embeddings"]["word"]["embedding"].T
            return jnp.matmul(x_BxTxD, kernel_DxV.astype(config.dtype), preferred_element_type=jnp.float32)
        product = functools.partial(jax.lax.dot_general, preferred_element_type=jnp.float32)
        dense = functools.partial(Dense, use_bias=False, dtype=config.dtype, kernel_init=_UNIFORM)
        return dense(config.vocab_size, dot_general=product, name="head")(x_BxTxD).astype(jnp.float32)


class Embeddings(nn.Module):
    """Word embeddings."""

    config: MambaConfig

    @nn.compact
    def __call__(self, tokens_BxT: Array) -> Array:
        """Returns ``x_BxTxD``."""
        init = nn.initializers.normal(0.02)
        config = self.config
        word = nn.Embed(config.vocab_size, config.width, dtype=config.dtype, embedding_init=init, name="word")
        return keep_divided(word(tokens_BxT))


class MambaLayer(nn.Module):
    """The mixer behind a norm, added to its input."""

    config: MambaConfig

    @nn.compact
    def __call__(
        self, x_BxTxD: Array, is_token_BxT: Array | None, cache: MambaCache | None
    ) -> tuple[Array, MambaCache | None]:
        """Returns the next ``x_BxTxD`` and the layer's part of the cache."""
        normed_BxTxD = _norm(self.config)(x_BxTxD)
        mixed_BxTxD, cache = Mixer(self.config, name="mixer")(normed_BxTxD, is_token_BxT, cache)
        return keep_divided(x_BxTxD + mixed_BxTxD.astype(x_BxTxD.dtype)), cache


class Mixer(nn.Module):
    """A gated convolution and selective scan over time."""

    config: MambaConfig

    @nn.compact
    def __call__(
        self, x_BxTxD: Array, is_token_BxT: Array | None, cache: MambaCache | None
    ) -> tuple[Array, MambaCache | None]:
        """Returns the next ``x_BxTxD`` and the layer's part of the cache."""
        config = self.config
        inner, dtype = config.inner_width, jnp.dtype(config.dtype)
        both = Dense(2 * inner, use_bias=config.dense_bias, dtype=dtype, kernel_init=_UNIFORM, name="in_proj")
        x_BxTxE, gate_BxTxE = jnp.split(both(x_BxTxD), 2, axis=-1)
        kernel_KxE = self.param("conv_kernel", _UNIFORM, (config.conv_width, inner))
        bias_E = self.param("conv_bias", nn.initializers.zeros, (inner,)) if config.conv_bias else None
        past = None if cache is None else cache.window
        x_BxTxE, window_BxWxE = causal_conv(x_BxTxE, kernel_KxE, bias_E, past=past, is_token=is_token_BxT)
        x_BxTxE = ACTIVATIONS[config.activation](x_BxTxE)
        sizes = (config.rank, config.rank + config.state_size)
        selected = Dense(sizes[1] + config.state_size, use_bias=False, dtype=dtype, kernel_init=_UNIFORM, name="x_proj")
        step_BxTxR, b_BxTxS, c_BxTxS = jnp.split(selected(x_BxTxE), sizes, axis=-1)
        step = Dense(inner, dtype=jnp.float32, kernel_init=_UNIFORM, bias_init=_init_step_bias, name="dt_proj")
        delta_BxTxE = jax.nn.softplus(step(step_BxTxR))
        if is_token_BxT is not None:
            delta_BxTxE = jnp.where(is_token_BxT[..., None], delta_BxTxE, 0)  # padding leaves the state as it is
        log_a_ExS = self.param("A_log", _init_log_a, (inner, config.state_size))
        skip_E = self.param("D", nn.initializers.ones, (inner,))
        y_BxTxE, state_BxSxE = selective_scan(
            x_BxTxE,
            delta_BxTxE,
            -jnp.exp(log_a_ExS.astype(jnp.float32)),
            b_BxTxS,
            c_BxTxS,
            skip_E,
            initial=None if cache is None else cache.state,
            chunk=config.chunk,
        )
        init = nn.initializers.variance_scaling(1 / (3 * config.num_layers), "fan_in", "uniform")
        out = Dense(config.width, use_bias=config.dense_bias, dtype=dtype, kernel_init=init, name="out_proj")
        cache = None if cache is None else MambaCache(window_BxWxE, state_BxSxE)
        return out(y_BxTxE * jax.nn.silu(gate_BxTxE)), cache


def _norm(config: MambaConfig) -> nn.RMSNorm:
    return nn.RMSNorm(config.norm_eps, dtype=jnp.dtype(config.dtype), name="norm")


def _init_log_a(key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """The real diagonal of S4D: state s decays at the rate s + 1."""
    del key
    return jnp.broadcast_to(jnp.log(jnp.arange(1, shape[1] + 1, dtype=dtype)), shape)


def _init_step_bias(key: Key, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> Array:
    """Makes the step sizes log-uniform: softplus of the bias."""
    low, high = math.log(_MIN_STEP), math.log(_MAX_STEP)
    steps = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return steps + jnp.log(-jnp.expm1(-steps))
