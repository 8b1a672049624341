"""The multilayer perceptron of the end model and of the networks that stand for an expert."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import Array

#: Kernels and biases, from the first layer to the last.
Layers = tuple[tuple[Array, Array], ...] | list[tuple[Array, Array]]


def logits(layers: Layers, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Returns the outputs of the last layer; the others have ReLUs."""
    *hidden, (last, bias) = layers
    for weight, offset in hidden:
        x = jax.nn.relu(jnp.dot(x, weight, precision="highest") + offset)
    return jnp.dot(x, last, precision="highest") + bias
