"""Image nets as pure functions of their parameters and their batch statistics."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.typing import AnyArray, Array, Key, PyTree


class Variables(NamedTuple):
    """What a net is made of, a pytree.

    Attributes:
      params: what training changes.
      batch_stats: running means and variances of batch norm, an empty dict for nets without it.
    """

    params: PyTree
    batch_stats: PyTree


def init(module: nn.Module, key: Key, image_shape: tuple[int, int, int]) -> Variables:
    """Draws a net's parameters.

    Args:
      module: a net of :mod:`zsml_jax.models.vision`.
      key: the random key.
      image_shape: height, width and channels.

    Returns:
      Parameters, and batch statistics of mean 0 and variance 1.

    Raises:
      ValueError: if ``image_shape`` is not three positive numbers, or too small for the net.
    """
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ValueError(f"image_shape must be height, width and channels, all positive, got {image_shape}")
    variables = jax.jit(module.init)(key, jnp.zeros((1, *image_shape)))
    return Variables(variables["params"], variables.get("batch_stats", {}))


def apply(
    module: nn.Module, variables: Variables, images: Shaped[AnyArray, "b height width channels"], *, train: bool = False
) -> tuple[Float[Array, "b k"], PyTree]:
    """Returns logits, and the batch statistics to go on with; a pure function.

    Args:
      module: the net.
      variables: from :func:`init`, or of the same structure.
      images: numbers, scaled as the net was trained with.
      train: whether batch norm uses, and remembers, the statistics of these images. With False it uses the running
        ones, and the statistics come back as they were.

    Returns:
      Logits in float32, and the batch statistics.

    Raises:
      ValueError: if ``images`` has not four axes.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (b, height, width, channels), got the shape {images.shape}")
    collections: dict[str, Any] = {"params": variables.params, "batch_stats": variables.batch_stats}
    if not train or not jax.tree.leaves(variables.batch_stats):
        return jnp.asarray(module.apply(collections, images, train=train), jnp.float32), variables.batch_stats
    logits, changed = module.apply(collections, images, train=True, mutable=["batch_stats"])
    return jnp.asarray(logits, jnp.float32), changed["batch_stats"]
