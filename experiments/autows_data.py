"""Where the AutoWS benchmark gets its examples.

The paper's sets that no package carries are read from a folder (``--data-dir``): ``youtube``, ``yelp`` and ``imdb`` as
WRENCH ships them, ``<name>/train.json`` and ``<name>/test.json``, or the latter two as prepared TFDS sets; ``ecg``,
``ember`` and ``navier_stokes`` as ``<name>.npz`` with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
"""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from zsml_jax import data
from zsml_jax.data import assets
from zsml_jax.data.dataset import Dataset
from zsml_jax.models.torch_pickle import read_torch_pickle
from zsml_jax.weaksup import image_domains

IMAGES = ("mnist", "permuted_mnist", "spherical_mnist", "fashion_mnist", "cifar10")
TEXTS = ("bbc_news", "trec_coarse", "sentiment_domains")
OTHERS = ("digits", "darcy", "power_demand", "breast_cancer", "wine")
DATASETS = (*IMAGES, *TEXTS, *OTHERS)
LOCAL_TEXTS = ("youtube", "yelp", "imdb")
LOCAL_ARRAYS = ("ecg", "ember", "navier_stokes")
NAMES = (*DATASETS, *LOCAL_TEXTS, *LOCAL_ARRAYS)
_TFDS_NAMES = {"yelp": "yelp_polarity_reviews", "imdb": "imdb_reviews"}
#: What a foundation model is asked about the classes of a data set.
_TEMPLATES = {
    "bbc_news": "a news article about {}",
    "trec_coarse": "a question that asks for {}",
    "sentiment_domains": "{}",
    "fashion_mnist": "a photo of a {}, a type of clothing.",
    "cifar10": "a photo of a {}.",
    **dict.fromkeys(("mnist", "permuted_mnist", "spherical_mnist"), "a photo of the number {}."),
}
#: The same for classes without names.
_PROMPTS = {
    "youtube": ("a comment on a video", "spam"),
    "yelp": ("a negative review", "a positive review"),
    "imdb": ("a negative review of a film", "a positive review of a film"),
}


class Content(NamedTuple):
    """Inputs and labels of both splits.

    Attributes:
      train: texts, images in [0, 1], or rows of numbers.
      train_labels: class indices.
      test: as ``train``.
      test_labels: class indices.
      prompts: a sentence for each class; none where the classes have no names that mean anything.
    """

    train: list[str] | np.ndarray
    train_labels: np.ndarray
    test: list[str] | np.ndarray
    test_labels: np.ndarray
    prompts: tuple[str, ...] = ()


def load(name: str, *, data_dir: Path | None, train_examples: int, test_examples: int) -> Content:
    """Loads a data set; 0 takes all examples of a split.

    Raises:
      ValueError: if the name is unknown, a folder is needed and not given, or a file does not hold what it should.
      FileNotFoundError: if a file is not there.
    """
    if name not in NAMES:
        raise ValueError(f"datasets must name some of {', '.join(NAMES)}, got {name!r}")
    if name in IMAGES:
        content = _images(name, data_dir)
    elif name in (*TEXTS, "digits"):
        content = _both(name, *(data.load(name, split=split) for split in ("train+validation", "test")))
    elif name in (*LOCAL_TEXTS, *LOCAL_ARRAYS):
        content = _local(name, _given(name, data_dir))
    else:
        content = {"darcy": _darcy, "power_demand": _power_demand}.get(name, lambda: _table(name))()
    train = slice(None, train_examples or None)
    test = slice(None, test_examples or None)
    cut = content._replace(
        train=content.train[train],
        train_labels=content.train_labels[train],
        test=content.test[test],
        test_labels=content.test_labels[test],
    )
    if name == "spherical_mnist":
        project = lambda images, seed: np.asarray(image_domains.spherical(images, key=jax.random.key(seed)))
        return cut._replace(train=project(cut.train, 0), test=project(cut.test, 1))
    return cut


def _given(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        raise ValueError(f"{name} needs --data-dir, a folder that holds it")
    return data_dir


def _both(name: str, train: Dataset, test: Dataset) -> Content:
    classes = train.class_descriptions or train.class_names
    prompts = tuple(_TEMPLATES[name].format(text) for text in classes) if name in _TEMPLATES else ()
    return Content(train.inputs, train.labels, test.inputs, test.labels, prompts)


def _images(name: str, data_dir: Path | None) -> Content:
    data_dir = _given(name, data_dir)
    source = "mnist" if name.endswith("mnist") and not name.startswith("fashion") else name
    # Of CIFAR-10 there may be the test split only; it is cut in 8,000 and 2,000.
    splits = ("test[:8000]", "test[8000:]") if name == "cifar10" else ("train", "test")
    content = _both(name, *(data.load(source, split=split, data_dir=data_dir) for split in splits))
    scale = lambda images: np.asarray(images, np.float32) / 255
    train, test = scale(content.train), scale(content.test)
    if train.shape[-1] == 1:
        train, test = train[..., 0], test[..., 0]
    if name == "permuted_mnist":
        train, test = (np.asarray(image_domains.permuted(images)) for images in (train, test))
    return content._replace(train=train, test=test)


def _local(name: str, data_dir: Path) -> Content:
    folder, arrays = data_dir / name, data_dir / f"{name}.npz"
    if name in LOCAL_ARRAYS:
        if not arrays.is_file():
            raise FileNotFoundError(f"{name} needs the file {arrays} with x_train, y_train, x_test and y_test")
        with np.load(arrays) as file:
            parts = [file[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in file]
        if len(parts) < 4 or [len(x) for x in parts[::2]] != [len(y) for y in parts[1::2]]:
            raise ValueError(f"{arrays} must hold x_train, y_train, x_test and y_test, as many labels as rows")
        return Content(*(part.astype(np.float32 if i % 2 == 0 else np.int64) for i, part in enumerate(parts)))
    if (folder / "train.json").is_file():
        (x, y), (test_x, test_y) = (_wrench(folder / f"{split}.json") for split in ("train", "test"))
        return Content(x, y, test_x, test_y, _PROMPTS[name])
    if name not in _TFDS_NAMES:
        raise FileNotFoundError(f"{name} needs the files train.json and test.json of WRENCH in {folder}")
    train, test = (data.load(_TFDS_NAMES[name], split=split, data_dir=data_dir) for split in ("train", "test"))
    return _both(name, train, test)._replace(prompts=_PROMPTS[name])


def _wrench(path: Path) -> tuple[list[str], np.ndarray]:
    """Texts and labels of a split, as WRENCH (Zhang et al., 2021) stores them."""
    try:
        rows = list(json.loads(path.read_text(encoding="utf-8")).values())
        return [row["data"]["text"] for row in rows], np.array([int(row["label"]) for row in rows])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path} must map ids to {{"label": ..., "data": {{"text": ...}}}} as WRENCH does') from error


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
