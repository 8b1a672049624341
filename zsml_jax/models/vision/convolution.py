"""Convolutions as torch pads them, and the norms between them."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from zsml_jax.models.vision.depthwise_conv import depthwise_conv

#: He et al. (2015): the variance of the signal stays the same through ReLU layers.
HE_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


@dataclasses.dataclass(frozen=True)
class Norm:
    """Which norm follows a convolution.

    Attributes:
      kind: ``"batch"`` (Ioffe and Szegedy 2015) or ``"group"`` (Wu and He 2018), which needs no statistics of a batch.
      eps: added to the variance.
      momentum: the share of the old running statistics that a batch leaves; torch's momentum is one minus this.
      num_groups: groups of a group norm; they divide all widths of the net.
    """

    kind: Literal["batch", "group"] = "batch"
    eps: float = 1e-5
    momentum: float = 0.9
    num_groups: int = 8

    def __post_init__(self):
        if self.kind not in ("batch", "group"):
            raise ValueError(f"kind must be 'batch' or 'group', got {self.kind!r}")
        if self.num_groups < 1:
            raise ValueError(f"num_groups must be at least 1, got {self.num_groups}")


#: With torch's defaults.
BATCH_NORM = Norm()
#: As TensorFlow's EfficientNets are trained.
TENSORFLOW_BATCH_NORM = Norm(eps=1e-3, momentum=0.99)


def conv(
    features: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | str | None = None,
    groups: int = 1,
    bias: bool = False,
    dtype: str = "float32",
    name: str,
) -> nn.Conv:
    """Returns a square convolution over ``(b, height, width, channels)``.

    Args:
      features: output channels.
      kernel: rows and columns of the kernel, pixels.
      stride: pixels from one output to the next.
      padding: pixels on all sides, or a rule of ``jax.lax``; half the kernel if None.
      groups: groups of channels that do not see each other; as many as channels for a depthwise one.
      bias: whether it has a bias.
      dtype: name of the dtype of activations.
      name: name of the module.
    """
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        # "SAME" pads less on the left where a stride is in play, which torch's weights do not expect.
        padding=kernel // 2 if padding is None else padding,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=HE_INIT,
        dtype=jnp.dtype(dtype),
        conv_general_dilated=depthwise_conv if 1 < groups == features else None,
        name=name,
    )


def norm(config: Norm, train: bool, *, dtype: str = "float32", name: str) -> Any:
    """Returns the norm over ``(b, height, width, channels)``.

    Args:
      config: which.
      train: whether a batch norm uses the batch's statistics, and remembers them, instead of the running ones.
      dtype: name of the dtype of activations.
      name: name of the module.
    """
    if config.kind == "group":
        return nn.GroupNorm(
            config.num_groups, epsilon=config.eps, dtype=jnp.dtype(dtype), use_fast_variance=False, name=name
        )
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=config.momentum,
        epsilon=config.eps,
        dtype=jnp.dtype(dtype),
        use_fast_variance=False,
        name=name,
    )
