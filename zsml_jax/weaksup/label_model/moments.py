"""How often two functions give two votes together: all that moment methods read of the votes."""

import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import Array
from zsml_jax.weaksup.vote_matrix import summed_over_rows


def second_moments(votes: Int[Array, "n m"], k: int) -> Float[Array, "mk mk"]:
    """Returns the share of examples with vote a of function i and vote b of j, at ``[i * k + a, j * k + b]``."""
    return joint_counts(votes, k) / votes.shape[0]


def joint_counts(votes: Int[Array, "n m"], k: int) -> Float[Array, "mk mk"]:
    """Returns the number of those examples, whose sums and differences are exact in float32 up to 16 million."""
    m = votes.shape[1]
    dtype = jnp.result_type(float)

    def products(block: Array) -> Array:
        one_hot = (block[:, :, None] == jnp.arange(k, dtype=block.dtype)).reshape(-1, m * k).astype(dtype)
        return jnp.dot(one_hot.T, one_hot, precision="highest")

    return summed_over_rows(products, votes)
