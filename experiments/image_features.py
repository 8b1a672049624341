"""Images as EfficientNet-Lite0 sees them, for experiments that train small classifiers on its features."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.models.vision import apply, load_efficientnet, preprocess
from zsml_jax.report import progress
from zsml_jax.transform import capture


def image_net(images: Float[np.ndarray, "n y x *c"], batch: int = 64) -> Float[np.ndarray, "n 1280"]:
    """Returns the pooled features of the real weights, which its last layer makes ImageNet's classes of.

    Args:
      images: in [0, 1], with three channels, one or none.
      batch: images at a time.
    """
    module, variables = load_efficientnet()
    if images.ndim == 3:
        images = images[..., None]
    forward = lambda params, x: apply(module, variables._replace(params=params), x)[0]

    @jax.jit
    def net(x: jax.Array) -> jax.Array:
        x = jnp.broadcast_to(255 * x, (*x.shape[:3], 3))
        return capture(forward, "head", of="input")(variables.params, preprocess(x))[1]["head"]

    starts = range(0, len(images), batch)
    parts = [np.asarray(net(images[i : i + batch])) for i in progress(starts, "embedding")]
    return np.concatenate(parts)
