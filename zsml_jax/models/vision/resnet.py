"""Residual nets of basic blocks, He et al. (2016), "Deep residual learning for image recognition".

:data:`RESNET18` is the net for ImageNet (section 3.3, table 1), :data:`RESNET20` the one for CIFAR-10 with
parameter-free shortcuts (section 4.2, option A).

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.models.vision.convolution import BATCH_NORM, Norm, conv, norm
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """The static shape of a residual net.

    Attributes:
      num_classes: the number of classes k.
      widths: channels of each stage; from the second on, a stage halves height and width.
      depths: blocks of each stage.
      stem: ``"imagenet"`` is a 7 x 7 convolution and a pooling, each of stride 2; ``"cifar"`` one of 3 x 3.
      shortcut: where a block changes the shape, a 1 x 1 convolution (``"projection"``, option B of the paper), or every
        second pixel with channels of zeros on both sides (``"zero_pad"``, option A).
      norm: after each convolution.
      dtype: name of the dtype of activations.
    """

    num_classes: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stem: Literal["imagenet", "cifar"] = "cifar"
    shortcut: Literal["projection", "zero_pad"] = "projection"
    norm: Norm = BATCH_NORM
    dtype: str = "float32"

    def __post_init__(self):
        if len(self.widths) != len(self.depths) or not self.widths:
            raise ValueError(f"widths and depths must name the same stages, got {self.widths} and {self.depths}")
        for name, value, known in (
            ("stem", self.stem, ("imagenet", "cifar")),
            ("shortcut", self.shortcut, ("projection", "zero_pad")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}")


RESNET18 = ResNetConfig(1000, (64, 128, 256, 512), (2, 2, 2, 2), stem="imagenet")
RESNET20 = ResNetConfig(10, (16, 32, 64), (3, 3, 3), shortcut="zero_pad")


class ResNet(nn.Module):
    """The net; parameter paths are ``stem/kernel``, ``stage_0_block_0/conv_0/kernel``, ... , ``head/kernel``."""

    config: ResNetConfig

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; with ``train``, batch norm uses the batch's statistics."""
        config = self.config
        imagenet = config.stem == "imagenet"
        x_BxHxWxC = jnp.asarray(images, jnp.dtype(config.dtype))
        kernel, stride = (7, 2) if imagenet else (3, 1)
        x_BxHxWxC = conv(config.widths[0], kernel, stride=stride, dtype=config.dtype, name="stem")(x_BxHxWxC)
        x_BxHxWxC = jax.nn.relu(norm(config.norm, train, dtype=config.dtype, name="stem_norm")(x_BxHxWxC))
        if imagenet:
            x_BxHxWxC = nn.max_pool(x_BxHxWxC, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                block = BasicBlock(config, width, stride, name=f"stage_{stage}_block_{i}")
                x_BxHxWxC = block(x_BxHxWxC, train)
        x_BxC = jnp.mean(x_BxHxWxC, axis=(1, 2))
        return nn.Dense(config.num_classes, dtype=jnp.dtype(config.dtype), name="head")(x_BxC)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, added to a shortcut."""

    config: ResNetConfig
    width: int
    stride: int

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool) -> Array:
        """Returns the next ``x_BxHxWxC``."""
        config = self.config
        y_BxHxWxC = conv(self.width, 3, stride=self.stride, dtype=config.dtype, name="conv_0")(x_BxHxWxC)
        y_BxHxWxC = jax.nn.relu(norm(config.norm, train, dtype=config.dtype, name="norm_0")(y_BxHxWxC))
        y_BxHxWxC = conv(self.width, 3, dtype=config.dtype, name="conv_1")(y_BxHxWxC)
        y_BxHxWxC = norm(config.norm, train, dtype=config.dtype, name="norm_1")(y_BxHxWxC)
        if x_BxHxWxC.shape != y_BxHxWxC.shape:
            x_BxHxWxC = self._shortcut(x_BxHxWxC, train)
        return keep_divided(jax.nn.relu(x_BxHxWxC + y_BxHxWxC))

    def _shortcut(self, x_BxHxWxC: Array, train: bool) -> Array:
        config = self.config
        if config.shortcut == "zero_pad":
            more = self.width - x_BxHxWxC.shape[-1]
            x_BxHxWxC = x_BxHxWxC[:, :: self.stride, :: self.stride]
            return jnp.pad(x_BxHxWxC, ((0, 0), (0, 0), (0, 0), (more // 2, more - more // 2)))
        x_BxHxWxC = conv(self.width, 1, stride=self.stride, dtype=config.dtype, name="shortcut")(x_BxHxWxC)
        return norm(config.norm, train, dtype=config.dtype, name="shortcut_norm")(x_BxHxWxC)
