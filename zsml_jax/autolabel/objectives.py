"""Losses of training that are meant to make confidence better: cross-entropy, squentropy, CRL, mixup.

Each is a function of logits and labels of a batch; :mod:`.training` puts them into steps.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from zsml_jax.typing import Array, Key, Scalar


def cross_entropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Returns the cross-entropy of each point, nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def squentropy(logits: Float[Array, "b k"], labels: Int[Array, " b"]) -> Float[Array, " b"]:
    """Returns cross-entropy plus the mean square of the wrong logits (Hui, Belkin and Wright, 2023, section 2).

    >>> round(float(squentropy(jnp.array([[0.0, 3.0, 4.0]]), jnp.array([0]))[0] - jnp.log(1 + jnp.e**3 + jnp.e**4)), 3)
    12.5
    """
    k = logits.shape[1]
    wrong = jnp.arange(k) != labels[:, None]
    return cross_entropy(logits, labels) + (wrong * logits**2).sum(axis=1) / max(k - 1, 1)


def correctness_ranking(logits: Float[Array, "b k"], seen_correct: Float[Array, " b"]) -> Float[Array, " b"]:
    r"""Returns the correctness ranking loss of each point and the one before it (Moon et al., 2020, equation 3).

    With :math:`\kappa` the largest softmax probability and c the share of past epochs in which a point was right, it is
    :math:`\max(0, -g(c_i, c_j) (\kappa_i - \kappa_j) + |c_i - c_j|)`, where g is the sign of :math:`c_i - c_j`.

    >>> probs = jnp.log(jnp.array([[0.6, 0.4], [0.9, 0.1]]))
    >>> [round(x, 3) for x in correctness_ranking(probs, jnp.array([1.0, 0.5])).tolist()]
    [0.8, 0.8]

    Args:
      logits: of the batch.
      seen_correct: the share of past epochs in which each point was predicted right, in [0, 1].
    """
    confidence = jax.nn.softmax(logits, axis=1).max(axis=1)
    difference = seen_correct - jnp.roll(seen_correct, 1)
    return jax.nn.relu(-jnp.sign(difference) * (confidence - jnp.roll(confidence, 1)) + jnp.abs(difference))


def mixed(x: Array, share: Float[Array, ""]) -> Array:
    """Returns each point mixed with the one before it: ``share * x + (1 - share) * rolled`` (Zhang et al., 2018)."""
    return share * x + (1 - share) * jnp.roll(x, 1, axis=0)


def mixing_share(key: Key, concentration: Scalar) -> Float[Array, ""]:
    """Returns the share of mixup, a draw of Beta(concentration, concentration)."""
    return jax.random.beta(key, concentration, concentration)
