"""LeNet-5, LeCun et al. (1998), "Gradient-based learning applied to document recognition", section II.

With every feature map of the second convolution connected to all of the first, and average pooling without parameters:
what is called LeNet-5 today. On 28 x 28 images it has 61,706 parameters.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels, ``F`` features.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.models.vision.banded_conv import BandedConv
from zsml_jax.typing import AnyArray, Array

_ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class LeNet5Config:
    """The static shape of a LeNet-5.

    Attributes:
      num_classes: the number of classes k.
      padding: around the image; 2 for images of 28 x 28, 0 for 32 x 32.
      activation: ``"tanh"`` as in the paper, or ``"relu"``.
      dtype: name of the dtype of activations.
    """

    num_classes: int = 10
    padding: int = 2
    activation: str = "tanh"
    dtype: str = "float32"

    def __post_init__(self):
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, got {self.activation!r}")


class LeNet5(nn.Module):
    """Two convolutions, three dense layers; parameter paths are ``conv_0/kernel``, ``dense_0/kernel``, ``head/...``."""

    config: LeNet5Config

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; ``train`` changes nothing."""
        del train
        config = self.config
        dtype, activation = jnp.dtype(config.dtype), _ACTIVATIONS[config.activation]
        if min(images.shape[1:3]) + 2 * config.padding < 16:
            raise ValueError(f"images must be at least 16 pixels high and wide with padding, got {images.shape}")
        x_BxHxWxC = jnp.asarray(images, dtype)
        for i, (features, padding) in enumerate(((6, config.padding), (16, 0))):
            x_BxHxWxC = BandedConv(features, 5, padding, config.dtype, name=f"conv_{i}")(x_BxHxWxC)
            x_BxHxWxC = nn.avg_pool(activation(x_BxHxWxC), (2, 2), (2, 2))
        x_BxF = x_BxHxWxC.reshape(len(images), -1)
        for i, width in enumerate((120, 84)):
            x_BxF = activation(nn.Dense(width, dtype=dtype, name=f"dense_{i}")(x_BxF))
        return nn.Dense(config.num_classes, dtype=dtype, name="head")(x_BxF)
