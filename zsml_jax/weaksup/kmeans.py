"""k-means, which gives mixtures without labels their beginning."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import Array, Key


@functools.partial(jax.jit, static_argnames=("k", "restarts", "steps"))
def assignments(
    x: Float[Array, "n p"], k: int, *, key: Key, restarts: int = 10, steps: int = 50
) -> Float[Array, "n k"]:
    """Returns each example's cluster one-hot, of the best of several restarts (Lloyd; k-means++ seeds).

    Args:
      x: one row an example.
      k: the number of clusters.
      key: the random key of the seeds.
      restarts: of which the one with the least squared distance is taken.
      steps: of Lloyd's iteration.
    """
    # Far from zero, float32 loses what sets the examples apart.
    x = x - x.mean(axis=0)

    def squares(centres: Array) -> Array:
        inner = jnp.dot(x, centres.T, precision="highest")
        return (x**2).sum(axis=1, keepdims=True) - 2 * inner + (centres**2).sum(axis=1)

    def seeds(key: Key) -> Array:
        def add(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            centres, nearest = state
            row = jax.random.categorical(jax.random.fold_in(key, i), jnp.log(jnp.maximum(nearest, 1e-12)))
            centres = centres.at[i].set(x[row])
            return centres, jnp.minimum(nearest, ((x - x[row]) ** 2).sum(axis=1))

        first = x[jax.random.randint(key, (), 0, len(x))]
        state = jnp.zeros((k, x.shape[1]), x.dtype).at[0].set(first), ((x - first) ** 2).sum(axis=1)
        return jax.lax.fori_loop(1, k, add, state)[0]

    def run(key: Key) -> tuple[Array, Array]:
        def step(centres: Array, _: None) -> tuple[Array, None]:
            member = jax.nn.one_hot(jnp.argmin(squares(centres), axis=1), k, dtype=x.dtype)
            size = member.sum(axis=0)[:, None]
            moved = jnp.dot(member.T, x, precision="highest") / jnp.maximum(size, 1)
            return jnp.where(size > 0, moved, centres), None

        centres, _ = jax.lax.scan(step, seeds(key), None, length=steps)
        return centres, squares(centres).min(axis=1).sum()

    centres, inertia = jax.lax.map(run, jax.random.split(key, restarts))
    return jax.nn.one_hot(jnp.argmin(squares(centres[jnp.argmin(inertia)]), axis=1), k, dtype=x.dtype)
