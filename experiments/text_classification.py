"""What the text experiments share: a named data set, its embeddings, and a zero-shot head for its classes."""

from typing import NamedTuple

import numpy as np

from zsml_jax import data
from zsml_jax.data.dataset import Dataset
from zsml_jax.typing import Encoder
from zsml_jax.zeroshot.head import ClassHead, class_head


class Split(NamedTuple):
    """A split with its embeddings, ``(n, d)``."""

    dataset: Dataset
    x: np.ndarray

    @property
    def labels(self) -> np.ndarray:
        """Class indices, ``(n,)``."""
        return self.dataset.labels

    @property
    def label_distribution(self) -> np.ndarray:
        """The share of each class, ``(k,)``."""
        return self.dataset.label_distribution


def load_splits(encoder: Encoder, name: str, *splits: str, limit: int = 0) -> list[Split]:
    """Loads and embeds splits of a data set; a positive ``limit`` keeps so many examples of each."""
    loaded = [data.load(name, split=f"{split}[:{limit}]" if limit else split) for split in splits]
    return [Split(part, np.asarray(encoder(list(part.inputs)))) for part in loaded]


def described_head(encoder: Encoder, dataset: Dataset, template: str, logit_scale: float) -> ClassHead:
    """Returns a head whose prompts put each class's description into the template."""
    descriptions = dataset.class_descriptions or dataset.class_names
    return class_head(encoder, [template.format(text) for text in descriptions], logit_scale=logit_scale)
