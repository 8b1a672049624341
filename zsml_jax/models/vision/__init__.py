"""The small image nets of the papers: MLP, LeNet-5, a plain CNN, ResNet, wide ResNet, EfficientNet-Lite0.

Start with :func:`init` and :func:`apply`, which work for every net here: images are ``(b, height, width, channels)``,
and the running statistics of batch norm are an argument and a result, beside the parameters. :func:`named` makes the
nets that papers name, and :func:`load_efficientnet` reads one that knows ImageNet.
"""

from zsml_jax.models.vision.cifar_net import CifarNet, CifarNetConfig
from zsml_jax.models.vision.classifier import Variables, apply, init
from zsml_jax.models.vision.convolution import Norm
from zsml_jax.models.vision.efficientnet import EfficientNet, EfficientNetConfig
from zsml_jax.models.vision.efficientnet_weights import load_efficientnet, preprocess
from zsml_jax.models.vision.lenet import LeNet5, LeNet5Config
from zsml_jax.models.vision.mlp import Mlp, MlpConfig
from zsml_jax.models.vision.named import named
from zsml_jax.models.vision.resnet import ResNet, ResNetConfig
from zsml_jax.models.vision.wide_resnet import WideResNet, WideResNetConfig

__all__ = [
    "CifarNet",
    "CifarNetConfig",
    "EfficientNet",
    "EfficientNetConfig",
    "LeNet5",
    "LeNet5Config",
    "Mlp",
    "MlpConfig",
    "Norm",
    "ResNet",
    "ResNetConfig",
    "Variables",
    "WideResNet",
    "WideResNetConfig",
    "apply",
    "init",
    "load_efficientnet",
    "named",
    "preprocess",
]
