"""Images moved out of the domain that encoders know: permuted, and projected onto a sphere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Key


def bit_reversal(size: int) -> Int[np.ndarray, " size"]:
    """Returns 0 to size - 1 in the order of their reversed bits.

    >>> bit_reversal(6).tolist()
    [0, 4, 2, 1, 5, 3]
    """
    bits = max(1, (size - 1).bit_length())
    order = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return np.array([i for i in order if i < size])


def permuted(images: AnyArray) -> AnyArray:
    """Returns images ``(n, y, x, ...)`` with rows and columns in bit-reversed order, as the benchmark has MNIST."""
    rows, columns = bit_reversal(images.shape[1]), bit_reversal(images.shape[2])
    return images[:, rows][:, :, columns]


def spherical(images: Float[AnyArray, "n y x"], *, key: Key, size: int = 60) -> Float[Array, "n s s"]:
    """Projects each image onto a sphere that is turned at random, and samples it on a grid of latitudes and longitudes.

    The image is seen from the south pole by stereographic projection; points that do not fall on it are zero (Cohen et
    al., "Spherical CNNs", ICLR 2018, section 5.2).

    Args:
      images: grey images.
      key: the random key of the rotations, one for each image.
      size: of the grid.
    """
    keys = jax.random.split(key, len(images))
    block = jax.vmap(functools.partial(_project, size=size))
    return jax.lax.map(lambda pair: block(*pair), _blocks(jnp.asarray(images, jnp.float32), keys)).reshape(
        -1, size, size
    )[: len(images)]


def _blocks(images: Array, keys: Array, rows: int = 256) -> tuple[Array, Array]:
    places = jnp.minimum(jnp.arange(-(-len(images) // rows) * rows), len(images) - 1).reshape(-1, rows)
    return images[places], keys[places]


def _project(image: Array, key: Key, *, size: int) -> Array:
    latitude = jnp.pi * (2 * jnp.arange(size) + 1) / (2 * size)
    longitude = 2 * jnp.pi * jnp.arange(size) / size
    theta, phi = jnp.meshgrid(latitude, longitude, indexing="ij")
    points = jnp.stack([jnp.sin(theta) * jnp.cos(phi), jnp.sin(theta) * jnp.sin(phi), jnp.cos(theta)], axis=-1)
    # The orthogonal factor of a Gaussian matrix, signs fixed, is a uniform rotation up to a reflection.
    q, r = jnp.linalg.qr(jax.random.normal(key, (3, 3)))
    q = q * jnp.sign(jnp.diagonal(r))
    q = q.at[:, 0].multiply(jnp.sign(jnp.linalg.det(q)))
    x, y, z = jnp.moveaxis(points @ q, -1, 0)
    away = jnp.maximum(1 - z, 1e-6)  # the north pole is infinitely far away
    height, width = image.shape
    rows = (y / away + 1) / 2 * (height - 1)
    columns = (x / away + 1) / 2 * (width - 1)
    return jax.scipy.ndimage.map_coordinates(image, [rows, columns], order=1, mode="constant", cval=0.0)
