"""Affinities for GOGGLES: how alike two examples are, by vectors or by the parts of images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array


def cosine(features: Float[AnyArray, "n d"], anchors: Float[AnyArray, "p d"]) -> Float[Array, "n p"]:
    """Returns the cosine of each example with each anchor; zero for a vector of zeros."""
    return jnp.dot(_unit(jnp.asarray(features)), _unit(jnp.asarray(anchors)).T, precision="highest")


def prototypes(
    patches: Float[AnyArray, "n s c"], anchors: Float[AnyArray, "p s c"], *, count: int = 10
) -> Float[Array, "a n p"]:
    """Returns the affinities of GOGGLES by one layer of an image network (Das et al., SIGMOD 2020, section 3).

    An anchor's prototypes are its patches where its most active channels peak, one for each of ``count`` channels. The
    affinity by a prototype is the largest cosine that any patch of an example has with it.

    Args:
      patches: the layer's output for each example, s places of c channels.
      anchors: the same for the anchors, of the same layer.
      count: how many prototypes each anchor has; that many matrices are returned.

    Raises:
      ValueError: if the channels differ, or there are fewer than ``count``.
    """
    if np.shape(patches)[2] != np.shape(anchors)[2] or not 1 <= count <= np.shape(anchors)[2]:
        raise ValueError(
            f"patches and anchors must share their channels, at least {count} of them, got shapes {np.shape(patches)} "
            f"and {np.shape(anchors)}"
        )
    return _prototypes(jnp.asarray(patches), jnp.asarray(anchors), count=count)


@functools.partial(jax.jit, static_argnames="count")
def _prototypes(patches: Array, anchors: Array, *, count: int) -> Array:
    def vectors(anchor: Array) -> Array:
        channels = jax.lax.top_k(anchor.max(axis=0), count)[1]
        return anchor[jnp.argmax(anchor[:, channels], axis=0)]  # (count, c)

    of_anchors = _unit(jax.vmap(vectors)(anchors))
    best = lambda one: jnp.einsum("sc,pac->aps", _unit(one), of_anchors, precision="highest").max(axis=-1)
    return jnp.moveaxis(jax.lax.map(best, patches), 0, 1)


def _unit(x: Array) -> Array:
    norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(norm > 0, norm, 1)
