"""Wide residual nets WRN-d-k, Zagoruyko and Komodakis (2016), "Wide residual networks", section 2.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.models.vision.convolution import BATCH_NORM, Norm, conv, norm
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class WideResNetConfig:
    """The static shape of a WRN-d-k, without dropout.

    Attributes:
      depth: d, convolutions on the longest path: 4 more than a multiple of 6, such as 16, 28 or 40.
      widening: k, the stages have 16 k, 32 k and 64 k channels.
      num_classes: the number of classes.
      norm: before each activation.
      dtype: name of the dtype of activations.
    """

    depth: int = 28
    widening: int = 10
    num_classes: int = 10
    norm: Norm = BATCH_NORM
    dtype: str = "float32"

    def __post_init__(self):
        if self.depth < 10 or (self.depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 for a positive n, got {self.depth}")
        if self.widening < 1:
            raise ValueError(f"widening must be at least 1, got {self.widening}")


class WideResNet(nn.Module):
    """The net; parameter paths are ``stem/kernel``, ``stage_0_block_0/norm_0/scale``, ... , ``head/kernel``."""

    config: WideResNetConfig

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; with ``train``, batch norm uses the batch's statistics."""
        config = self.config
        x_BxHxWxC = jnp.asarray(images, jnp.dtype(config.dtype))
        x_BxHxWxC = conv(16, 3, dtype=config.dtype, name="stem")(x_BxHxWxC)
        for stage in range(3):
            for i in range((config.depth - 4) // 6):
                stride = 2 if stage > 0 and i == 0 else 1
                block = PreActivationBlock(
                    config, 16 * config.widening * 2**stage, stride, name=f"stage_{stage}_block_{i}"
                )
                x_BxHxWxC = block(x_BxHxWxC, train)
        x_BxHxWxC = jax.nn.relu(norm(config.norm, train, dtype=config.dtype, name="norm")(x_BxHxWxC))
        x_BxC = jnp.mean(x_BxHxWxC, axis=(1, 2))
        return nn.Dense(config.num_classes, dtype=jnp.dtype(config.dtype), name="head")(x_BxC)


class PreActivationBlock(nn.Module):
    """Two 3 x 3 convolutions, each after its norm and ReLU; a projection starts behind the first ReLU."""

    config: WideResNetConfig
    width: int
    stride: int

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool) -> Array:
        """Returns the next ``x_BxHxWxC``."""
        config = self.config
        y_BxHxWxC = jax.nn.relu(norm(config.norm, train, dtype=config.dtype, name="norm_0")(x_BxHxWxC))
        if x_BxHxWxC.shape[-1] != self.width or self.stride > 1:
            x_BxHxWxC = conv(self.width, 1, stride=self.stride, dtype=config.dtype, name="shortcut")(y_BxHxWxC)
        y_BxHxWxC = conv(self.width, 3, stride=self.stride, dtype=config.dtype, name="conv_0")(y_BxHxWxC)
        y_BxHxWxC = jax.nn.relu(norm(config.norm, train, dtype=config.dtype, name="norm_1")(y_BxHxWxC))
        return keep_divided(x_BxHxWxC + conv(self.width, 3, dtype=config.dtype, name="conv_1")(y_BxHxWxC))
