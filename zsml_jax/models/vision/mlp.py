"""The multilayer perceptron on pixels.

Name suffixes: ``B`` batch, ``F`` features.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.typing import AnyArray, Array


@dataclasses.dataclass(frozen=True)
class MlpConfig:
    """The static shape of an MLP.

    Attributes:
      num_classes: the number of classes k.
      widths: of the hidden layers.
      dtype: name of the dtype of activations.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (128,)
    dtype: str = "float32"


class Mlp(nn.Module):
    """Dense layers with ReLU between them; parameter paths are ``hidden_0/kernel``, ... , ``head/bias``."""

    config: MlpConfig

    @nn.compact
    def __call__(
        self, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
    ) -> Float[Array, "b k"]:
        """Returns logits; ``train`` changes nothing."""
        del train
        dtype = jnp.dtype(self.config.dtype)
        x_BxF = jnp.asarray(images, dtype).reshape(len(images), -1)
        for i, width in enumerate(self.config.widths):
            x_BxF = jax.nn.relu(nn.Dense(width, dtype=dtype, name=f"hidden_{i}")(x_BxF))
        return nn.Dense(self.config.num_classes, dtype=dtype, name="head")(x_BxF)
