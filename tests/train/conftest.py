"""A regression small enough to train in every test, with dropout so that keys matter."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax import data
from zsml_jax.train import optimizer


class Problem(NamedTuple):
    """Parameters, a loss in fit's form, and what makes batches and optimizers."""

    params: dict
    loss: object

    def batches(self, batch_size=8, **options):
        rng = np.random.default_rng(1)
        rows = [{"x": x, "y": np.tanh(x[:2] - x[2:4])} for x in rng.standard_normal((32, 4)).astype(np.float32)]
        return data.batches(rows, batch_size=batch_size, seed=3, threads=0, **options)

    def optimizer(self, rate=0.05, **options):
        return optimizer.by_path([(".*", optimizer.adamw(rate))], **options)


def loss(params, batch, key):
    h = jnp.tanh(batch["x"] @ params["up"]["kernel"] + params["up"]["bias"])
    h = h * jax.random.bernoulli(key, 0.9, h.shape) / 0.9
    error = h @ params["down"]["kernel"] - batch["y"].astype(h.dtype)
    return (error**2).mean(), {"error": jnp.abs(error).mean()}


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    params = {
        "up": {"kernel": jnp.asarray(rng.standard_normal((4, 8)), jnp.float32) / 2, "bias": jnp.zeros(8)},
        "down": {"kernel": jnp.asarray(rng.standard_normal((8, 2)), jnp.float32) / 3},
    }
    return Problem(params, loss)
