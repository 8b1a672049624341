"""The MLP of a transformer's layer, plain or gated."""

import functools

import flax.linen as nn

from zsml_jax.models.activations import ACTIVATIONS
from zsml_jax.models.dense import Dense
from zsml_jax.typing import Array


class Mlp(nn.Module):
    """Two dense layers around the activation, or around its product with a third (Shazeer, 2020).

    Parameter paths are ``up/kernel``, ``gate/kernel`` where it is gated, ``down/kernel``, and biases beside them.

    Attributes:
      width: model width D.
      hidden_width: hidden width F.
      activation: a key of :data:`~zsml_jax.models.activations.ACTIVATIONS`.
      gated: whether the activation gates a second projection.
      use_bias: whether the dense layers have biases.
      dtype: name of the dtype of activations.
    """

    width: int
    hidden_width: int
    activation: str
    gated: bool = False
    use_bias: bool = True
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x_BxTxD: Array) -> Array:
        """Returns ``x_BxTxD``."""
        dense = functools.partial(Dense, use_bias=self.use_bias, dtype=self.dtype)
        activation = ACTIVATIONS[self.activation]
        h_BxTxF = dense(self.hidden_width, name="up")(x_BxTxD)
        if self.gated:
            h_BxTxF *= activation(dense(self.hidden_width, name="gate")(x_BxTxD))
        else:
            h_BxTxF = activation(h_BxTxF)
        return dense(self.width, name="down")(h_BxTxF)
