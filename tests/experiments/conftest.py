"""What the tests of the experiments share: an encoder without weights, made-up texts, and a made-up folder of CLIP."""

import zlib

import numpy as np
import pytest

from zsml_jax import data, models
from zsml_jax.data import cached_embeddings
from zsml_jax.data.cached_embeddings import CachedEmbeddings
from zsml_jax.data.dataset import Dataset


def bag_of_words(texts):
    """Sums a fixed random vector for each word, and scales the sum to unit length."""
    rows = []
    for text in texts:
        words = text.lower().replace(":", " ").split() or ["nothing"]
        rows.append(sum(np.random.default_rng(zlib.crc32(w.encode())).normal(size=24) for w in words))
    x = np.array(rows, np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture
def encoder(monkeypatch):
    """Puts the bag of words where the experiments load a sentence encoder."""
    monkeypatch.setattr(models, "text_encoder", lambda source: bag_of_words)
    return bag_of_words


@pytest.fixture
def texts(monkeypatch):
    """Returns a function that puts a made-up data set where the experiments load one; it notes what was loaded."""

    def put(class_names, *, n=60, groups=(), descriptions=None):
        loaded = []

        def load(name, split):
            base, _, rest = split.partition("[")
            loaded.append((name, split))
            rng = np.random.default_rng([zlib.crc32(base.encode()), n])
            size = min(n, int(rest.strip(":]"))) if rest else n
            # Skewed labels, all classes present; a text is noise with a word or two of its class.
            labels = np.concatenate([np.arange(len(class_names)), rng.integers(0, 2, n - len(class_names))])
            labels = rng.permutation(labels)[:size]
            domain = rng.integers(0, max(len(groups), 1), size)
            inputs = []
            for y, g in zip(labels, domain, strict=True):
                said = class_names[y] if rng.random() < 0.7 else class_names[rng.integers(len(class_names))]
                inputs.append(f"{said} {said} word{rng.integers(9)} {groups[g] if groups else 'none'}")
            return Dataset(
                name=name,
                split=split,
                inputs=inputs,
                labels=labels,
                class_names=class_names,
                class_descriptions=descriptions,
                groups=domain if groups else None,
                group_names=groups,
            )

        monkeypatch.setattr(data, "load", load)
        return loaded

    return put


@pytest.fixture
def clip_folder(tmp_path):
    """Returns a function that writes a folder of made-up embeddings and returns it."""

    def write(class_names, *, n=240, seed=0):
        rng = np.random.default_rng(seed)
        k, d = len(class_names), 16
        vectors = rng.normal(size=(k, d))
        labels = np.concatenate([np.arange(k).repeat(4), rng.integers(0, max(2, k // 2), n - 4 * k)])
        x = vectors[labels] + 1.5 * rng.normal(size=(n, d))
        folder = tmp_path / "embeddings"
        content = CachedEmbeddings(
            x.astype(np.float32),
            labels,
            tuple(class_names),
            tuple((name,) for name in class_names),
            vectors.astype(np.float32),
        )
        cached_embeddings.save(folder, content)
        return folder

    return write
