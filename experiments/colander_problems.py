"""What the Colander experiments label: features, classes, and the classifier for them."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from experiments import image_features
from experiments.colander_config import Cells
from zsml_jax import data, models
from zsml_jax.autolabel import Classifier, Outputs, mlp
from zsml_jax.models import vision
from zsml_jax.transform import capture
from zsml_jax.typing import AnyArray, Array, Key, PyTree


class Problem(NamedTuple):
    """A pool with its labels, and how it is classified."""

    features: Any
    labels: np.ndarray
    n_classes: int
    classifier: Classifier


def load(config: Cells) -> Problem:
    """Loads the pool.

    Raises:
      ValueError: if there is no such set, or the net does not fit its inputs.
    """
    built_in = config.dataset in data.dataset_names()
    part = data.load(config.dataset, split=config.split, data_dir=None if built_in else config.data_dir)
    k = len(part.class_names)
    if not isinstance(part.inputs, np.ndarray):
        if config.net != "mlp":
            raise ValueError(f"net must be mlp for texts, got {config.net}")
        x = _standardised(models.text_encoder(config.encoder)(list(part.inputs)))
    else:
        x = np.asarray(part.inputs, np.float32) / float(part.inputs.max())
    if config.net == "efficientnet":
        if x.ndim < 3:
            raise ValueError(f"net must be mlp for rows of {x.shape[1]} numbers, got efficientnet")
        x = _standardised(image_features.image_net(x))
    if config.net in ("lenet5", "cifar-net"):
        x = x if x.ndim == 4 else x[..., None]
        if x.shape[1] not in (28, 32):
            raise ValueError(f"net must be mlp for images that are neither 28 nor 32 pixels high, got {x.shape[1:]}")
        net = image_classifier(config.net, x.shape[1:], k)
        return Problem(jnp.asarray(255 * x if config.raw_pixels else x), part.labels, k, net)
    x = x.reshape(len(x), -1)
    return Problem(jnp.asarray(x), part.labels, k, mlp(x.shape[1], config.widths, k))


def _standardised(x: AnyArray) -> np.ndarray:
    """Centred features at unit variance over all: unit vectors of many dimensions have small entries otherwise."""
    x = np.asarray(x, np.float32)
    return (x - x.mean(axis=0)) / x.std()


@dataclasses.dataclass(frozen=True)
class _ImageNet:
    module: vision.LeNet5 | vision.CifarNet
    shape: tuple[int, ...]

    def init(self, key: Key) -> PyTree:
        return self.module.init(key, jnp.zeros((1, *self.shape)))["params"]

    def apply(self, params: PyTree, x: Float[Array, "b height width channels"]) -> Outputs:
        forward = lambda params, x: self.module.apply({"params": params}, x)
        logits, hidden = capture(forward, "head", of="input")(params, x)
        return Outputs(logits, hidden["head"])


@functools.cache
def image_classifier(name: str, shape: tuple[int, ...], k: int) -> Classifier:
    """Returns a lenet5 or cifar-net for images of 28 or 32 pixels; the same one for the same arguments."""
    if name == "lenet5":
        module = vision.LeNet5(vision.LeNet5Config(k, padding=2 if shape[0] == 28 else 0))
    else:
        module = vision.CifarNet(vision.CifarNetConfig(k))
    net = _ImageNet(module, shape)
    return Classifier(net.init, net.apply)


@dataclasses.dataclass(frozen=True)
class _Told:
    """A classifier whose points carry their labels, for a row of the table that no method may beat."""

    classifier: Classifier

    def init(self, key: Key) -> PyTree:
        return self.classifier.init(key)

    def apply(self, params: PyTree, x: tuple[Any, Array]) -> Outputs:
        return Outputs(self.classifier.apply(params, x[0]).logits, x[1][:, None])


@functools.cache
def _told_classifier(classifier: Classifier) -> Classifier:
    net = _Told(classifier)
    return Classifier(net.init, net.apply)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class TrueCorrectness:
    """Scores 1 where a prediction is right: the best that a score can do in a round, by cheating openly."""

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> tuple:
        """Returns nothing: there is nothing to fit."""
        return ()

    def score(self, fitted: tuple, outputs: Outputs) -> Float[Array, " n"]:
        """Compares predictions with the labels that :func:`told` put in."""
        return (outputs.predicted == outputs.hidden[:, 0].astype(int)).astype(outputs.logits.dtype)


def told(problem: Problem) -> Problem:
    """Returns a problem whose features carry the labels; only for :class:`TrueCorrectness`."""
    features = (problem.features, jnp.asarray(problem.labels, jnp.float32))
    return problem._replace(features=features, classifier=_told_classifier(problem.classifier))


def unit_ball(key: Key, n: int, dimension: int) -> tuple[Float[Array, "n d"], Int[Array, " n"]]:
    """Draws points uniformly in the unit ball, and their side of a random plane through its centre."""
    direction_key, radius_key, plane_key = jax.random.split(key, 3)
    x = jax.random.normal(direction_key, (n, dimension))
    radius = jax.random.uniform(radius_key, (n, 1)) ** (1 / dimension)
    x = radius * x / jnp.linalg.norm(x, axis=1, keepdims=True)
    plane = jax.random.normal(plane_key, (dimension,))
    return x, (x @ plane > 0).astype(jnp.int32)
