"""The golden Llama, whose layers are scanned, and the golden BERT, whose layers are numbered."""

from pathlib import Path

import jax
import numpy as np
import pytest

from zsml_jax import models

GOLDEN = Path(__file__).parent.parent / "golden"
TOKENS = np.random.default_rng(0).integers(1, 30, (3, 6)).astype(np.int32)


@pytest.fixture(scope="session")
def llama():
    return models.load(GOLDEN / "decoders" / "llama")


@pytest.fixture(scope="session")
def bert():
    return models.load(GOLDEN / "encoders" / "bert")


def randomised(adapter, seed=1, scale=0.3):
    """The adapter as if it were trained: noise on everything that is."""
    leaves, treedef = jax.tree.flatten((adapter.arrays, adapter.weights))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [leaf + scale * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    arrays, weights = treedef.unflatten(noise)
    return adapter.replace(arrays=arrays, weights=weights)
