"""Where the AutoWS benchmark gets its examples, and the features of them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from zsml_jax import data, models
from zsml_jax.data import assets
from zsml_jax.data.dataset import Dataset
from zsml_jax.models.torch_pickle import read_torch_pickle
from zsml_jax.models.vision import apply, load_efficientnet, preprocess
from zsml_jax.report import progress
from zsml_jax.weaksup import image_domains, protocol

IMAGES = ("mnist", "permuted_mnist", "spherical_mnist", "fashion_mnist", "cifar10")
TEXTS = ("bbc_news", "trec_coarse", "sentiment_domains")
OTHERS = ("digits", "darcy", "power_demand", "breast_cancer", "wine")
DATASETS = (*IMAGES, *TEXTS, *OTHERS)
FEATURES = ("raw", "pca", "minilm", "efficientnet")


class Content(NamedTuple):
    """Inputs and labels of both splits."""

    train: list[str] | np.ndarray
    train_labels: np.ndarray
    test: list[str] | np.ndarray
    test_labels: np.ndarray


class Problem(NamedTuple):
    """Features and labels of both splits.

    Attributes:
      x: the training examples, whose labels a method may see for a few rows only.
      y: their labels.
      test_x: the test examples.
      test_y: their labels.
    """

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load(name: str, *, data_dir: Path | None, train_examples: int, test_examples: int) -> Content:
    """Loads a data set; 0 takes all examples of a split.

    Raises:
      ValueError: if the name is unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"datasets must name some of {', '.join(DATASETS)}, got {name!r}")
    if name in IMAGES:
        content = _images(name, data_dir)
    elif name in (*TEXTS, "digits"):
        content = _both(*(data.load(name, split=split) for split in ("train+validation", "test")))
    else:
        content = {"darcy": _darcy, "power_demand": _power_demand}.get(name, lambda: _table(name))()
    train = slice(None, train_examples or None)
    test = slice(None, test_examples or None)
    cut = Content(content.train[train], content.train_labels[train], content.test[test], content.test_labels[test])
    if name == "spherical_mnist":
        project = lambda images, seed: np.asarray(image_domains.spherical(images, key=jax.random.key(seed)))
        return cut._replace(train=project(cut.train, 0), test=project(cut.test, 1))
    return cut


def features(content: Content, kind: str, *, components: int, transductive: bool, encoder: str) -> Problem:
    """Returns features of a data set.

    Args:
      content: the data set.
      kind: pixels, numbers or weighted words as they are (``raw``), their principal components (``pca``), a sentence
        encoder (``minilm``) or an image net (``efficientnet``).
      components: of ``pca``.
      transductive: whether the principal components see the test examples too.
      encoder: the sentence encoder.

    Raises:
      ValueError: if the data set has no such features.
    """
    texts = isinstance(content.train, list)
    if (kind == "minilm" and not texts) or (kind == "efficientnet" and (texts or np.ndim(content.train) < 3)):
        raise ValueError(f"features {kind!r} do not go with this kind of data")
    if kind == "minilm":
        encode = models.text_encoder(encoder)
        x, test_x = np.asarray(encode(list(content.train))), np.asarray(encode(list(content.test)))
    elif kind == "efficientnet":
        x, test_x = _image_net(np.asarray(content.train)), _image_net(np.asarray(content.test))
    else:
        x, test_x = _weighted_words(content) if texts else (_flat(content.train), _flat(content.test))
    if kind == "pca":
        seen = np.concatenate([x, test_x]) if transductive else x
        projection = protocol.principal_components(seen, min(components, *seen.shape))
        x, test_x = np.asarray(projection(x)), np.asarray(projection(test_x))
    return Problem(np.asarray(x, np.float32), content.train_labels, np.asarray(test_x, np.float32), content.test_labels)


def suited(dataset: str, kind: str) -> bool:
    """Whether a data set has these features."""
    return kind in ("raw", "pca") or dataset in {"minilm": TEXTS, "efficientnet": IMAGES}[kind]


def _both(train: Dataset, test: Dataset) -> Content:
    return Content(train.inputs, train.labels, test.inputs, test.labels)


def _images(name: str, data_dir: Path | None) -> Content:
    if data_dir is None:
        raise ValueError(f"{name} needs --data-dir, a folder of TFDS sets that holds it")
    source = "mnist" if name.endswith("mnist") and not name.startswith("fashion") else name
    # Of CIFAR-10 there may be the test split only; it is cut in 8,000 and 2,000.
    splits = ("test[:8000]", "test[8000:]") if name == "cifar10" else ("train", "test")
    content = _both(*(data.load(source, split=split, data_dir=data_dir) for split in splits))
    scale = lambda images: np.asarray(images, np.float32) / 255
    train, test = scale(content.train), scale(content.test)
    if source == "mnist":
        train, test = train[..., 0], test[..., 0]
    if name == "permuted_mnist":
        train, test = (np.asarray(image_domains.permuted(images)) for images in (train, test))
    return content._replace(train=train, test=test)


def _darcy() -> Content:
    """Permeability fields of 16 x 16; the class says whether the mean pressure is above the median of all."""
    tensors = read_torch_pickle(assets.path("neuraloperator", "darcy_train_16.pt"))
    x, pressure = tensors["x"].read().astype(np.float32), tensors["y"].read().mean(axis=(1, 2))
    y = (pressure > np.median(pressure)).astype(np.int64)
    return Content(x[:700], y[:700], x[700:], y[700:])


def _power_demand() -> Content:
    """Half-hourly power demand of Italian days, winter or summer (UCR archive, ItalyPowerDemand)."""
    folder = assets.path("aeon") / "ItalyPowerDemand"
    # The archive's small training split would leave no unlabelled examples; it is the other way round here.
    (test, test_y), (train, train_y) = (_series(folder / f"ItalyPowerDemand_{s}.ts") for s in ("TRAIN", "TEST"))
    return Content(train, train_y, test, test_y)


def _series(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = path.read_text().splitlines()
    rows = [line for line in lines if line and line[0] not in "@#"]
    values = np.array([[float(v) for v in row.split(":")[0].split(",")] for row in rows], np.float32)
    names = [row.split(":")[-1] for row in rows]
    return values, np.unique(names, return_inverse=True)[1]


def _table(name: str) -> Content:
    from sklearn import datasets

    source = getattr(datasets, f"load_{name}")()
    x = np.asarray(source.data, np.float32)
    order = np.random.default_rng(0).permutation(len(x))
    x, y, cut = x[order], np.asarray(source.target)[order], 7 * len(x) // 10
    mean, scale = x[:cut].mean(axis=0), x[:cut].std(axis=0)
    x = (x - mean) / np.where(scale > 0, scale, 1)
    return Content(x[:cut], y[:cut], x[cut:], y[cut:])


def _flat(x: list[str] | np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(len(x), -1)


def _weighted_words(content: Content, words: int = 500) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = TfidfVectorizer(max_features=words, dtype=np.float32).fit(content.train)
    dense = lambda texts: np.asarray(table.transform(texts).todense())
    return dense(content.train), dense(content.test)


def _image_net(images: np.ndarray, batch: int = 64) -> np.ndarray:
    module, variables = load_efficientnet()
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    net: Callable = jax.jit(lambda x: apply(module, variables, preprocess(x))[0])
    starts = range(0, len(images), batch)
    parts = [np.asarray(net(255 * images[i : i + batch])) for i in progress(starts, "embedding")]
    return np.concatenate(parts)
