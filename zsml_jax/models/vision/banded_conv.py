"""A convolution as one matrix product: rows of the image with a banded matrix that holds the kernel at every column.

XLA's convolutions are slow on CPUs inside a loop and where each trial of a study has a kernel of its own, and a study
is both: a step of LeNet-5 in a scan takes a seventh of the time this way, gradient included, and its forward pass half.
Most entries of the matrix are zeros, but it is wide where a kernel has few channels, and its rows are copied from the
image as they lie. It costs memory, kernel height times the input, and products, image width over kernel width times
those of the convolution, so it is for small images.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels, ``P`` numbers in the rows of a product, ``F``
features.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.models.vision.convolution import HE_INIT
from zsml_jax.typing import Array


class BandedConv(nn.Module):
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
        kernel = jnp.asarray(self.param("kernel", HE_INIT, shape), dtype)
        bias_F = jnp.asarray(self.param("bias", nn.initializers.zeros, (self.features,)), dtype)
        sides = (self.padding, self.padding)
        x_BxHxWxC = jnp.pad(x_BxHxWxC.astype(dtype), ((0, 0), sides, sides, (0, 0)))
        batch, height, width, channels = x_BxHxWxC.shape
        rows = height - size + 1
        shifted = [x_BxHxWxC[:, i : i + rows].reshape(batch, rows, width * channels) for i in range(size)]
        x_BxHxP = jnp.concatenate(shifted, axis=-1)
        return (x_BxHxP @ _banded(kernel, width)).reshape(batch, rows, -1, self.features) + bias_F


def _banded(kernel: Float[Array, "size size channels features"], width: int) -> Float[Array, "p columns_features"]:
    """Returns the matrix from rows of an image, as many as the kernel has, to a row of features."""
    size, _, channels, _ = kernel.shape
    offset = np.arange(width)[:, None] - np.arange(width - size + 1)
    inside = (offset >= 0) & (offset < size)
    placed = jnp.where(inside[:, :, None, None], kernel[:, np.clip(offset, 0, size - 1)], 0)
    return placed.swapaxes(2, 3).reshape(size * width * channels, -1)
