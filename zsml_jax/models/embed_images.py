"""Images to vectors with a pretrained image-text model."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float

from zsml_jax.models.embed import default_batch_size
from zsml_jax.models.image_preprocessing import Image, preprocess
from zsml_jax.models.pretrained import Pretrained, load
from zsml_jax.report import progress
from zsml_jax.typing import Array, Params

_LONG_WORK = 32  # batches, from which on progress is shown


def encode_images(
    pretrained: Pretrained, images: Sequence[Image], *, batch_size: int | None = None
) -> Float[np.ndarray, "n e"]:
    """Embeds images, as the model's own files say: resized, cropped, normalised, projected.

    Args:
      pretrained: a model with an image tower.
      images: files, PIL images or uint8 arrays ``(y, x[, c])``.
      batch_size: images per batch; None stands for :func:`~zsml_jax.models.embed.default_batch_size`.

    Returns:
      float32 unit vectors in the order of the images. Their products with the vectors of
      :func:`~zsml_jax.models.text_encoder`, times ``exp(params["logit_scale"])``, are the model's scores.

    Raises:
      ValueError: if there are no images, one is not an image, the model has no image tower, an embedding is not finite,
        or ``batch_size`` is not usable.
    """
    if pretrained.image is None:
        raise ValueError(f"pretrained must have an image tower, got a {pretrained.model_type or 'model without one'}")
    size = default_batch_size() if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    starts = range(0, len(images), size)
    parts = []
    for start in progress(starts, "embedding") if len(starts) >= _LONG_WORK else starts:
        pixels = preprocess(images[start : start + size], pretrained.image)
        # The last batch is filled up, so that there is one program.
        filled = np.pad(pixels, [(0, min(size, len(images)) - len(pixels)), (0, 0), (0, 0), (0, 0)])
        parts.append(np.asarray(_embed(pretrained.params, filled, module=pretrained.module))[: len(pixels)])
    embeddings = np.concatenate(parts)
    if not np.isfinite(embeddings).all():
        raise ValueError(f"pretrained gives embeddings that are not finite, with weights of {pretrained.config.dtype}")
    return embeddings


def image_encoder(
    source: str | Path | Pretrained, *, batch_size: int | None = None
) -> Callable[[Sequence[Image]], Float[np.ndarray, "n e"]]:
    """Returns a function that embeds images, whose vectors go into a head of :func:`zsml_jax.zeroshot.class_head`.

    Args:
      source: a loaded model, or what :func:`zsml_jax.models.load` takes.
      batch_size: as for :func:`encode_images`.

    Returns:
      The function, from n images to an array ``(n, e)``.
    """
    pretrained = source if isinstance(source, Pretrained) else load(source)
    return functools.partial(encode_images, pretrained, batch_size=batch_size)


@functools.partial(jax.jit, static_argnames="module")
def _embed(params: Params, pixels: Array, *, module: nn.Module) -> Array:
    output: Any = module.apply({"params": params}, images_NxYxXxC=pixels)
    return output.image
