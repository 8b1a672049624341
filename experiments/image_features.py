"""Images as EfficientNet-Lite0 sees them, for experiments that train small classifiers on its features."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from zsml_jax.models.vision import apply, load_efficientnet, preprocess
from zsml_jax.report import progress


def image_net(images: Float[np.ndarray, "n y x *c"], batch: int = 64) -> Float[np.ndarray, "n d"]:
    """Returns the pooled features of the real weights.

    Args:
      images: in [0, 1], with three channels or none.
      batch: images at a time.
    """
    module, variables = load_efficientnet()
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    net: Callable = jax.jit(lambda x: apply(module, variables, preprocess(x))[0])
    starts = range(0, len(images), batch)
    parts = [np.asarray(net(255 * images[i : i + batch])) for i in progress(starts, "embedding")]
    return np.concatenate(parts)
