"""EfficientNet-Lite0: Tan and Le (2019), "EfficientNet", without squeeze and excitation and with ReLU6.

The net of table 1 of the paper with the changes of the Lite family: no squeeze and excitation, ReLU6 for swish, and a
stem and a head of fixed width. It has 4,652,008 parameters. Dropout and stochastic depth, which only training would
use, are left out.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.models.vision.convolution import TENSORFLOW_BATCH_NORM, Norm, conv, norm
from zsml_jax.train.activations import keep_divided
from zsml_jax.typing import AnyArray, Array


class Stage(NamedTuple):
    """Blocks that are alike but for the first one's stride.

    Attributes:
      depth: the number of blocks.
      kernel: of the depthwise convolutions.
      stride: of the first block.
      expansion: inner channels are this many times the block's input channels.
      width: output channels.
    """

    depth: int
    kernel: int
    stride: int
    expansion: int
    width: int


_LITE0 = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig:
    """The static shape of an EfficientNet-Lite.

    Attributes:
      num_classes: the number of classes k.
      stages: of blocks.
      stem_width: channels of the first convolution.
      head_width: channels of the last convolution.
      norm: after each convolution.
      dtype: name of the dtype of activations.
    """

    num_classes: int = 1000
    stages: tuple[Stage, ...] = _LITE0
    stem_width: int = 32
    head_width: int = 1280
    norm: Norm = TENSORFLOW_BATCH_NORM
    dtype: str = "float32"


class EfficientNet(nn.Module):
    """The net; parameter paths are ``stem/kernel``, ``block_0/depthwise/kernel``, ... , ``head/kernel``."""

    config: EfficientNetConfig

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; with ``train``, batch norm uses the batch's statistics."""
        config = self.config
        x_BxHxWxC = jnp.asarray(images, jnp.dtype(config.dtype))
        x_BxHxWxC = _conv_norm(config, config.stem_width, 3, train, "stem", stride=2)(x_BxHxWxC)
        i = 0
        for stage in config.stages:
            for first in (stage.stride, *[1] * (stage.depth - 1)):
                x_BxHxWxC = InvertedBottleneck(config, stage, first, name=f"block_{i}")(x_BxHxWxC, train)
                i += 1
        x_BxHxWxC = _conv_norm(config, config.head_width, 1, train, "head_conv")(x_BxHxWxC)
        x_BxC = jnp.mean(x_BxHxWxC, axis=(1, 2))
        return nn.Dense(config.num_classes, dtype=jnp.dtype(config.dtype), name="head")(x_BxC)


class InvertedBottleneck(nn.Module):
    """Widen, convolve each channel, narrow (Sandler et al. 2018); added to the input where shapes allow."""

    config: EfficientNetConfig
    stage: Stage
    stride: int

    @nn.compact
    def __call__(self, x_BxHxWxC: Array, train: bool) -> Array:
        """Returns the next ``x_BxHxWxC``."""
        config, stage = self.config, self.stage
        inner = x_BxHxWxC.shape[-1] * stage.expansion
        y_BxHxWxC = x_BxHxWxC
        if stage.expansion > 1:
            y_BxHxWxC = _conv_norm(config, inner, 1, train, "expand")(y_BxHxWxC)
        depthwise = _conv_norm(config, inner, stage.kernel, train, "depthwise", stride=self.stride, groups=inner)
        y_BxHxWxC = _conv_norm(config, stage.width, 1, train, "project", activate=False)(depthwise(y_BxHxWxC))
        return keep_divided(x_BxHxWxC + y_BxHxWxC if x_BxHxWxC.shape == y_BxHxWxC.shape else y_BxHxWxC)


def _conv_norm(
    config: EfficientNetConfig,
    width: int,
    kernel: int,
    train: bool,
    name: str,
    *,
    stride: int = 1,
    groups: int = 1,
    activate: bool = True,
) -> Callable[[Array], Array]:
    # TensorFlow trained the published weights, and its "SAME" pads unevenly where a stride is in play.
    convolve = conv(width, kernel, stride=stride, padding="SAME", groups=groups, dtype=config.dtype, name=name)
    normalise = norm(config.norm, train, dtype=config.dtype, name=f"{name}_norm")
    return lambda x: jax.nn.relu6(normalise(convolve(x))) if activate else normalise(convolve(x))
