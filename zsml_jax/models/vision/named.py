"""The nets by the names that papers give them."""

import dataclasses
import re

import flax.linen as nn

from zsml_jax.data.nearest_name import nearest
from zsml_jax.models.vision.cifar_net import CifarNet, CifarNetConfig
from zsml_jax.models.vision.convolution import BATCH_NORM, TENSORFLOW_BATCH_NORM, Norm
from zsml_jax.models.vision.efficientnet import EfficientNet, EfficientNetConfig
from zsml_jax.models.vision.lenet import LeNet5, LeNet5Config
from zsml_jax.models.vision.mlp import Mlp, MlpConfig
from zsml_jax.models.vision.resnet import RESNET18, RESNET20, ResNet
from zsml_jax.models.vision.wide_resnet import WideResNet, WideResNetConfig

_NAMES = ("mlp", "lenet5", "cifar-net", "resnet18", "resnet20", "wrn-28-10", "efficientnet-lite0")


def named(name: str, *, num_classes: int, norm: Norm | None = None) -> nn.Module:
    """Returns a net by its name.

    Args:
      name: ``mlp`` (one hidden layer of 128), ``lenet5`` (for 28 x 28), ``cifar-net``, ``resnet18``, ``resnet20``,
        ``wrn-<d>-<k>`` for any depth and widening, or ``efficientnet-lite0``.
      num_classes: the number of classes.
      norm: another norm than the paper's batch norm; nets without norms take none.

    Returns:
      The module, for :func:`.classifier.init` and :func:`.classifier.apply`.

    Raises:
      ValueError: if there is no such net, or it has no norm and one is given.

    >>> named("wrn-16-4", num_classes=10).config.widening
    4
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if norm is not None and name in ("mlp", "lenet5", "cifar-net"):
        raise ValueError(f"norm must be None for {name}, which has no norms, got {norm}")
    if wide := re.fullmatch(r"wrn-(\d+)-(\d+)", name):
        depth, widening = map(int, wide.groups())
        return WideResNet(WideResNetConfig(depth, widening, num_classes, norm or BATCH_NORM))
    match name:
        case "mlp":
            return Mlp(MlpConfig(num_classes))
        case "lenet5":
            return LeNet5(LeNet5Config(num_classes))
        case "cifar-net":
            return CifarNet(CifarNetConfig(num_classes))
        case "resnet18":
            return ResNet(dataclasses.replace(RESNET18, num_classes=num_classes, norm=norm or BATCH_NORM))
        case "resnet20":
            return ResNet(dataclasses.replace(RESNET20, num_classes=num_classes, norm=norm or BATCH_NORM))
        case "efficientnet-lite0":
            return EfficientNet(EfficientNetConfig(num_classes, norm=norm or TENSORFLOW_BATCH_NORM))
    raise ValueError(f"there is no net {name!r}. {nearest(name, _NAMES, 'nets')}")
