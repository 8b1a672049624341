"""Six convolutions and two hidden layers without norms, the net that Colander is tried with on CIFAR-10.

The net is that of the appendix of Vishwakarma et al., 2024 ("Pearls from Pebbles: Improved Confidence Functions for
Auto-labeling"). On 32 x 32 images with three channels and ten classes it has 5,851,338 parameters.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels, ``F`` features.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.typing import AnyArray, Array

#: As torch draws weights: the signal gets smaller with every layer, so that pixels up to 255 do no harm.
_TORCH_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True)
class CifarNetConfig:
    """The static shape of the net.

    Attributes:
      num_classes: the number of classes k.
      widths: channels of the convolutions of each stage, at whose end the image is halved.
      hidden: widths of the hidden layers.
      dtype: name of the dtype of activations.
    """

    num_classes: int = 10
    widths: tuple[tuple[int, ...], ...] = ((32, 64), (128, 128), (256, 256))
    hidden: tuple[int, ...] = (1024, 512)
    dtype: str = "float32"


class CifarNet(nn.Module):
    """Layers with ReLUs between them; parameter paths are ``conv_0/kernel``, ``dense_0/kernel``, ``head/...``."""

    config: CifarNetConfig

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; ``train`` changes nothing."""
        del train
        config = self.config
        dtype = jnp.dtype(config.dtype)
        if min(images.shape[1:3]) < (least := 2 ** len(config.widths)):
            raise ValueError(f"images must be at least {least} pixels high and wide, got {images.shape}")
        x_BxHxWxC, layer = jnp.asarray(images, dtype), 0
        for stage in config.widths:
            for width in stage:
                conv = nn.Conv(width, (3, 3), padding=1, kernel_init=_TORCH_INIT, dtype=dtype, name=f"conv_{layer}")
                x_BxHxWxC, layer = jax.nn.relu(conv(x_BxHxWxC)), layer + 1
            x_BxHxWxC = nn.max_pool(x_BxHxWxC, (2, 2), (2, 2))
        x_BxF = x_BxHxWxC.reshape(len(images), -1)
        for i, width in enumerate(config.hidden):
            x_BxF = jax.nn.relu(nn.Dense(width, kernel_init=_TORCH_INIT, dtype=dtype, name=f"dense_{i}")(x_BxF))
        return nn.Dense(config.num_classes, kernel_init=_TORCH_INIT, dtype=dtype, name="head")(x_BxF)
