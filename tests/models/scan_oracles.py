"""What the selective scan is measured against: the recurrence in float64 numpy, and naive forms in JAX."""

import jax
import jax.numpy as jnp
import numpy as np


def scan_inputs(batch=2, length=11, channels=6, states=4, *, seed=0, dtype=np.float32):
    """Arguments of the scan as a dict, initial state included."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(dtype)
    return {
        "x": draw(batch, length, channels),
        "delta": np.log1p(np.exp(draw(batch, length, channels) - 1)).astype(dtype),
        "a": -np.exp(draw(channels, states)),
        "b": draw(batch, length, states),
        "c": draw(batch, length, states),
        "skip": draw(channels),
        "initial": draw(batch, states, channels),
    }


def recurrence(x, delta, a, b, c, skip, initial):
    """The definition, one step after another, in float64."""
    x, delta, a, b, c, skip, h = (np.asarray(value, np.float64) for value in (x, delta, a, b, c, skip, initial))
    y = np.empty_like(x)
    for t in range(x.shape[1]):
        decay = np.exp(delta[:, t, None, :] * a.T)
        h = decay * h + delta[:, t, None, :] * b[:, t, :, None] * x[:, t, None, :]
        y[:, t] = np.einsum("bsd,bs->bd", h, c[:, t]) + skip * x[:, t]
    return y, h


def associative(x, delta, a, b, c, skip, initial):
    """The whole sequence at once by ``jax.lax.associative_scan``; JAX derives its gradient."""
    decay = jnp.exp(delta[:, :, None, :] * jnp.asarray(a).T)
    inputs = delta[:, :, None, :] * b[..., None] * x[:, :, None, :]
    inputs = inputs.at[:, 0].add(decay[:, 0] * initial)
    combine = lambda left, right: (left[0] * right[0], right[0] * left[1] + right[1])
    _, h = jax.lax.associative_scan(combine, (decay, inputs), axis=1)
    return jnp.einsum("btsd,bts->btd", h, c) + skip * x, h[:, -1]
