"""A dense layer whose kernel is a Monarch product: few parameters and few operations, trained from scratch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jaxtyping import Float

from zsml_jax.peft import monarch
from zsml_jax.peft.monarch import Monarch, MonarchShape
from zsml_jax.typing import AnyArray, Array

# Each block is a dense layer of its own, and keeps the variance of what goes in.
_BLOCKS = nn.initializers.lecun_normal(in_axis=-1, out_axis=-2, batch_axis=0)


class MonarchDense(nn.Module):
    """Takes the place of ``nn.Dense``: r (n + m) numbers in place of n m, and as many multiplications for each vector.

    Parameters are ``first`` and ``second``, the factors of :class:`~zsml_jax.peft.monarch.Monarch`, and ``bias``.
    Where the blocks do not divide the block rank, parts of the kernel are zero, see
    :attr:`~zsml_jax.peft.monarch.MonarchShape.density`.

    >>> layer = MonarchDense(features=6, blocks=2, block_rank=2)
    >>> variables = layer.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> jax.tree.map(jnp.shape, variables["params"])
    {'bias': (6,), 'first': (2, 2, 2), 'second': (2, 3, 2)}

    Attributes:
      features: outputs m.
      blocks: N.
      block_rank: r; with r at least the width n / N or m / N of a block the product is a full Monarch matrix.
      use_bias: whether there is a bias.
      dtype: of the computation; that of input and parameters if None.
      param_dtype: of the parameters.
    """

    features: int
    blocks: int = 4
    block_rank: int = 4
    use_bias: bool = True
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x_BxN: Float[AnyArray, "*b n"]) -> Float[Array, "*b m"]:
        """Returns ``y_BxM``."""
        shape = MonarchShape(x_BxN.shape[-1], self.features, self.blocks, self.block_rank)
        first = self.param("first", _BLOCKS, shape.first, self.param_dtype)
        second = self.param("second", _BLOCKS, shape.second, self.param_dtype)
        bias_M = (
            self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype) if self.use_bias else None
        )
        x_BxN, first, second, bias_M = promote_dtype(x_BxN, first, second, bias_M, dtype=self.dtype)
        y_BxM = monarch.product(x_BxN, Monarch(first, second), self.features)
        return y_BxM if bias_M is None else y_BxM + bias_M
