"""Small problems with few labels, for the tests of this room."""

import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)


def blobs(n=240, k=2, d=4, labelled=60, seed=0, spread=1.0):
    """Gaussians of which some rows have a label: features, all classes, and labels with -1 for the others."""
    rng = np.random.default_rng(seed)
    means = 2.0 * rng.normal(size=(k, d))
    truth = rng.permutation(np.arange(n) % k)
    x = (means[truth] + spread * rng.normal(size=(n, d))).astype(np.float32)
    labels = np.full(n, -1)
    labels[:labelled] = truth[:labelled]
    return jnp.asarray(x), truth, labels
