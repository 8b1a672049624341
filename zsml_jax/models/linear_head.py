"""A linear classifier on vectors: the head that is trained beside an adapter."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Key, Params


def init_linear_head(width: int, num_classes: int, *, key: Key) -> Params:
    """Returns the parameters of a head, ``kernel`` ``(width, num_classes)`` and ``bias``, float32.

    The kernel is drawn with the standard deviation 0.02, as BERT's classifiers are (Devlin et al., 2019, released code,
    ``run_classifier.py``); the bias is zero.

    Args:
      width: numbers in a vector.
      num_classes: classes, at least 2.
      key: the random key.

    Raises:
      ValueError: if a size is too small.
    """
    for name, value, least in (("width", width, 1), ("num_classes", num_classes, 2)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    return {"kernel": 0.02 * jax.random.normal(key, (width, num_classes)), "bias": jnp.zeros(num_classes)}


def linear_head(params: Params, vectors: Float[AnyArray, "*b d"]) -> Float[Array, "*b k"]:
    """Returns the logits of each class, ``vectors @ kernel + bias``, in float32.

    >>> head = {"kernel": jnp.array([[1.0, -1.0]]), "bias": jnp.array([0.5, 0.0])}
    >>> linear_head(head, jnp.array([[2.0], [0.0]])).tolist()
    [[2.5, -2.0], [0.5, 0.0]]

    Args:
      params: of :func:`init_linear_head`.
      vectors: such as :func:`~zsml_jax.models.sentence.pool` gives.
    """
    return jnp.asarray(vectors, jnp.float32) @ params["kernel"] + params["bias"]
