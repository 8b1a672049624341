"""What a classifier says of points: all that a confidence function may see of them."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import Array


class Outputs(NamedTuple):
    """The outputs of a classifier, a pytree. There is no place in it for a label.

    Attributes:
      logits: class scores in nats, ``(n, k)``.
      hidden: the activations before the last layer, ``(n, d)``; d may be 0.
    """

    logits: Float[Array, "n k"]
    hidden: Float[Array, "n d"]

    @property
    def predicted(self) -> Int[Array, " n"]:
        """The predicted classes, ``(n,)``; the first on ties."""
        return jnp.argmax(self.logits, axis=-1)

    def take(self, rows: Int[Array, " m"]) -> "Outputs":
        """Returns the outputs of some points."""
        return Outputs(self.logits[rows], self.hidden[rows])


def own(values: Float[Array, "n k"], predicted: Int[Array, " n"]) -> Float[Array, " n"]:
    """Returns each row's entry at its predicted class."""
    return jnp.take_along_axis(values, predicted[:, None], axis=1)[:, 0]
