"""CLIP: a text tower and an image tower whose vectors can be compared (Radford et al., 2021).

Both towers are transformers with their norms before attention and MLP. A text's vector is read where it ends, an
image's at a class token before its patches (Dosovitskiy et al., 2021).

Name suffixes: ``B`` batch, ``T`` tokens or patches, ``D`` tower width, ``F`` hidden width of the MLP, ``H`` heads,
``K`` width of a head, ``E`` width of the common space, ``Y``, ``X``, ``C`` rows, columns and channels of an image.
"""

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from zsml_jax.models.attention import attend
from zsml_jax.models.causal_mask import causal_mask, check_mask
from zsml_jax.models.config_checks import check_activation, check_dtype, check_heads, check_sizes
from zsml_jax.models.dense import Dense
from zsml_jax.models.layer_stack import Remat, run_layers
from zsml_jax.models.mlp import Mlp
from zsml_jax.models.norms import norm
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class TowerConfig:
    """The static shape of a tower's layers.

    Attributes:
      width: tower width D.
      num_layers: number of layers.
      num_heads: attention heads; they divide the width.
      mlp_width: hidden width F of the MLP.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      norm_eps: epsilon of the layer norms.
      dtype: name of the dtype of activations; norms and softmax accumulate in float32.
      remat: what the backward pass computes again instead of keeping it, see :data:`.layer_stack.Remat`.
      unroll: whether the layers are compiled one by one instead of as a loop.
    """

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    activation: str = "quick_gelu"
    norm_eps: float = 1e-5
    dtype: str = "float32"
    remat: Remat = False
    unroll: bool = False

    def __post_init__(self):
        check_sizes(self, "width", "num_layers", "num_heads", "mlp_width")
        check_activation(self.activation)
        check_heads(self.width, self.num_heads)
        check_dtype(self.dtype)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """The static shape of a CLIP model.

    Attributes:
      text: layers of the text tower.
      image: layers of the image tower.
      vocab_size: rows of the word embedding.
      max_positions: the longest text in tokens.
      end_id: the token whose first place gives the text's vector; None takes the place of the largest id, as the first
        published models do, whose end token is the last of the vocabulary.
      image_size: rows and columns of an image.
      patch_size: rows and columns of a patch; it divides the image's.
      channels: channels of an image.
      projection_width: width E of the common space.
    """

    text: TowerConfig
    image: TowerConfig
    vocab_size: int = 49408
    max_positions: int = 77
    end_id: int | None = None
    image_size: int = 224
    patch_size: int = 32
    channels: int = 3
    projection_width: int = 512

    def __post_init__(self):
        check_sizes(self, "vocab_size", "max_positions", "image_size", "patch_size", "channels", "projection_width")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size must divide the image's {self.image_size}, got {self.patch_size}")

    @property
    def max_length(self) -> int:
        """The longest text, in tokens."""
        return self.max_positions

    @property
    def dtype(self) -> str:
        """Dtype of activations."""
        return self.text.dtype


class ClipOutput(NamedTuple):
    """What CLIP computes of what it was given; the rest is None.

    Attributes:
      text: unit vectors of the texts, ``(b, e)`` float32.
      image: unit vectors of the images, ``(n, e)`` float32.
      logit_scale: the factor on their products, the exponential of the parameter.
      last: the text tower's normalised hidden states, ``(b, t, d)``.
      image_last: the image tower's last hidden states, the class token first, ``(n, p + 1, d)``.
    """

    text: Array | None
    image: Array | None
    logit_scale: Array
    last: Array | None
    image_last: Array | None

    @property
    def logits(self) -> None:
        """CLIP has no head over words."""
        return None

    @property
    def logits_per_image(self) -> Array:
        """Scores of each text for each image, ``(n, b)``."""
        return self.logit_scale * jnp.asarray(self.image) @ jnp.asarray(self.text).T


class Clip(nn.Module):
    """Both towers, under ``text/...`` and ``image/...``, and ``logit_scale``; layers are stacked in ``.../layers``."""

    config: ClipConfig

    @nn.compact
    def __call__(
        self,
        tokens_BxT: Int[AnyArray, "b t"] | None = None,
        attention_mask_BxT: Shaped[AnyArray, "b t"] | None = None,
        *,
        images_NxYxXxC: Float[AnyArray, "n y x c"] | None = None,
    ) -> ClipOutput:
        """Embeds texts, images or both.

        Args:
          tokens_BxT: token ids with an end token in each row.
          attention_mask_BxT: non-zero at tokens, 0 at padding; all are tokens if None.
          images_NxYxXxC: normalised images, as :func:`~zsml_jax.models.image_preprocessing.preprocess` gives them.

        Returns:
          Unit vectors and hidden states.

        Raises:
          ValueError: if texts are too long or images have another size than the model's.
        """
        text = image = last = image_last = None
        if tokens_BxT is not None:
            text, last = TextTower(self.config, name="text")(jnp.asarray(tokens_BxT), attention_mask_BxT)
        if images_NxYxXxC is not None:
            image, image_last = ImageTower(self.config, name="image")(jnp.asarray(images_NxYxXxC))
        # The published initial value, the logarithm of 1 / 0.07 (section 2.5).
        log_scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), (), jnp.float32)
        return ClipOutput(text, image, jnp.exp(log_scale.astype(jnp.float32)), last, image_last)


class TextTower(nn.Module):
    """A causal transformer over tokens."""

    config: ClipConfig

    @nn.compact
    def __call__(self, tokens_BxT: Array, attention_mask_BxT: AnyArray | None) -> tuple[Array, Array]:
        """Returns ``text_BxE`` and ``x_BxTxD``."""
        config, tower = self.config, self.config.text
        check_mask(attention_mask_BxT, tokens_BxT)
        length = tokens_BxT.shape[1]
        if length > config.max_positions:
            raise ValueError(f"tokens must have at most {config.max_positions} columns (positions), got {length}")
        x_BxTxD = nn.Embed(config.vocab_size, tower.width, dtype=tower.dtype, name="word")(tokens_BxT)
        x_BxTxD += nn.Embed(config.max_positions, tower.width, dtype=tower.dtype, name="position")(np.arange(length))
        mask = causal_mask(np.arange(length), attention_mask_BxT, length)
        x_BxTxD, _ = run_layers(TowerLayer, tower, keep_divided(x_BxTxD), mask, None, num_layers=tower.num_layers)
        x_BxTxD = norm("layer", tower.norm_eps, tower.dtype, "norm")(x_BxTxD)
        ends_BxT = tokens_BxT if config.end_id is None else tokens_BxT == config.end_id
        end_BxD = jnp.take_along_axis(x_BxTxD, jnp.argmax(ends_BxT, axis=1)[:, None, None], axis=1)[:, 0]
        return _projected(end_BxD, config), x_BxTxD


class ImageTower(nn.Module):
    """A transformer over patches, behind a class token whose state becomes the image's vector."""

    config: ClipConfig

    @nn.compact
    def __call__(self, images_BxYxXxC: Array) -> tuple[Array, Array]:
        """Returns ``image_BxE`` and ``x_BxTxD``."""
        config, tower = self.config, self.config.image
        expected = (config.image_size, config.image_size, config.channels)
        if images_BxYxXxC.shape[1:] != expected:
            raise ValueError(f"images must have the shape (n, {expected}), got {images_BxYxXxC.shape}")
        patch = (config.patch_size, config.patch_size)
        conv = nn.Conv(tower.width, patch, patch, "VALID", use_bias=False, dtype=tower.dtype, name="patch")
        x_BxYxXxD = conv(images_BxYxXxC)
        x_BxTxD = x_BxYxXxD.reshape(len(x_BxYxXxD), -1, tower.width)
        class_D = self.param("class", nn.initializers.normal(tower.width**-0.5), (tower.width,))
        class_Bx1xD = jnp.broadcast_to(class_D.astype(tower.dtype), (len(x_BxTxD), 1, tower.width))
        x_BxTxD = jnp.concatenate([class_Bx1xD, x_BxTxD], axis=1)
        length = x_BxTxD.shape[1]
        x_BxTxD += nn.Embed(length, tower.width, dtype=tower.dtype, name="position")(np.arange(length))
        x_BxTxD = norm("layer", tower.norm_eps, tower.dtype, "pre_norm")(keep_divided(x_BxTxD))
        x_BxTxD, _ = run_layers(TowerLayer, tower, x_BxTxD, None, None, num_layers=tower.num_layers)
        class_BxD = norm("layer", tower.norm_eps, tower.dtype, "norm")(x_BxTxD[:, 0])
        return _projected(class_BxD, config), x_BxTxD


class TowerLayer(nn.Module):
    """Self-attention and MLP, each behind its norm and added to its input."""

    config: TowerConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask_BxTxT: Array | None, per_layer: None) -> tuple[Array, None]:
        """Returns the next ``x_BxTxD``; keys where the mask is false are not looked at."""
        config = self.config
        normed_BxTxD = norm("layer", config.norm_eps, config.dtype, "attention_norm")(x_BxTxD)
        x_BxTxD += SelfAttention(config, name="attention")(normed_BxTxD, mask_BxTxT)
        normed_BxTxD = norm("layer", config.norm_eps, config.dtype, "mlp_norm")(x_BxTxD)
        mlp = Mlp(config.width, config.mlp_width, config.activation, dtype=config.dtype, name="mlp")
        return keep_divided(x_BxTxD + mlp(normed_BxTxD)), None


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    config: TowerConfig

    @nn.compact
    def __call__(self, x_BxTxD: Array, mask_BxTxT: Array | None) -> Array:
        """Returns ``x_BxTxD``; keys where the mask is false are not looked at."""
        config = self.config
        heads = (*x_BxTxD.shape[:2], config.num_heads, config.width // config.num_heads)
        q_BxTxHxK, k_BxTxHxK, v_BxTxHxK = (
            Dense(config.width, dtype=config.dtype, name=name)(x_BxTxD).reshape(heads)
            for name in ("query", "key", "value")
        )
        mixed_BxTxHxK = attend(q_BxTxHxK, k_BxTxHxK, v_BxTxHxK, mask=mask_BxTxT)
        return Dense(config.width, dtype=config.dtype, name="out")(mixed_BxTxHxK.reshape(x_BxTxD.shape))


def _projected(x_BxD: Array, config: ClipConfig) -> Array:
    """The unit vectors in the common space, float32; called inside a compact method."""
    projection = Dense(config.projection_width, use_bias=False, dtype=config.dtype, name="projection")
    x_BxE = projection(x_BxD).astype(jnp.float32)
    return x_BxE / jnp.linalg.norm(x_BxE, axis=-1, keepdims=True)
