"""A convolution as one matrix product: strips of the image with a banded matrix that holds the kernel at every column.

XLA's convolutions are slow on CPUs inside a loop and where each trial of a study has a kernel of its own, and a study
is both: a step of LeNet-5 in a scan takes a seventh of the time this way, gradient included, and its forward pass half.
Strips little wider than the kernel leave few of the matrix's entries zero, and are still copied from the image row by
row. It costs memory, kernel height times about twice the input, and about twice the products of the convolution, so it
is for small images.

Name suffixes: ``B`` batch, ``H`` height, ``W`` width, ``C`` channels, ``S`` strips, ``P`` numbers in the rows of a
product, ``F`` features.
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
        batch, height, width, _ = x_BxHxWxC.shape
        rows, columns = height - size + 1, width - size + 1
        step = _strip(columns, size)
        strips = [x_BxHxWxC[:, :, start : start + step + size - 1] for start in range(0, columns, step)]
        x_BxHxSxP = jnp.stack(strips, axis=2).reshape(batch, height, len(strips), -1)
        x_BxHxSxP = jnp.concatenate([x_BxHxSxP[:, i : i + rows] for i in range(size)], axis=-1)
        banded = _banded(kernel, step + size - 1)
        return (x_BxHxSxP @ banded).reshape(batch, rows, columns, self.features) + bias_F


def _strip(columns: int, size: int) -> int:
    """Returns how many columns of features a strip gives: a divisor of all, the least that is not below the kernel."""
    return next(step for step in range(min(size, columns), columns + 1) if columns % step == 0)


def _banded(kernel: Float[Array, "size size channels features"], width: int) -> Float[Array, "p columns_features"]:
    """Returns the matrix from a strip of an image, as high as the kernel, to a row of features."""
    size, _, channels, _ = kernel.shape
    offset = np.arange(width)[:, None] - np.arange(width - size + 1)
    inside = (offset >= 0) & (offset < size)
    placed = jnp.where(inside[:, :, None, None], kernel[:, np.clip(offset, 0, size - 1)], 0)
    return placed.swapaxes(2, 3).reshape(size * width * channels, -1)
