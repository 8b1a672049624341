"""A convolution as one matrix product over patches of the image.

XLA's convolutions are slow on CPUs inside a loop and where each trial of a study has a kernel of its own, and a study
is both: a step of LeNet-5 in a scan takes a tenth of the time this way. It costs memory, kernel height times width the
input, so it is for small images.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels, ``P`` numbers in a patch, ``F`` features.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.models.vision.convolution import HE_INIT
from zsml_jax.typing import Array


class PatchConv(nn.Module):
    """A square convolution of stride 1 with a bias, with the parameters of ``flax.linen.Conv``.

    Attributes:
      features: output channels.
      kernel: height and width of the kernel.
      padding: zeros on all sides.
      dtype: name of the dtype of activations.
    """

    features: int
    kernel: int
    padding: int = 0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BxHxWxC: Float[Array, "b height width channels"]) -> Float[Array, "b _ _ features"]:
        """Returns the features at each place of the kernel."""
        size, dtype = self.kernel, jnp.dtype(self.dtype)
        shape = (size, size, x_BxHxWxC.shape[-1], self.features)
        kernel = self.param("kernel", HE_INIT, shape).astype(dtype)
        bias_F = self.param("bias", nn.initializers.zeros, (self.features,)).astype(dtype)
        sides = (self.padding, self.padding)
        x_BxHxWxC = jnp.pad(x_BxHxWxC.astype(dtype), ((0, 0), sides, sides, (0, 0)))
        height, width = (length - size + 1 for length in x_BxHxWxC.shape[1:3])
        shifted = [x_BxHxWxC[:, i : i + height, j : j + width] for i in range(size) for j in range(size)]
        patches_BxHxWxP = jnp.concatenate(shifted, axis=-1)
        return patches_BxHxWxP @ kernel.reshape(-1, self.features) + bias_F
