r"""The Fermi-Dirac decoder, which turns squared distances into edges, and the detector of collapsed models.

Krioukov et al., "Hyperbolic Geometry of Complex Networks", 2010: :math:`p = 1 / (e^{(d^2 - r)/t} + 1)`. A model whose
nodes all lie in one point has a loss that depends on r and t alone, 2.25386 at r = 2 and t = 1; a quarter to a half of
the published baselines sit there.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.typing import AnyArray, Array, Scalar


class CollapseWarning(UserWarning):
    """A link predictor gives every pair the same score."""


class FermiDirac(NamedTuple):
    """The decoder's numbers, learnable.

    Attributes:
      radius: the squared distance at which an edge is as likely as not, r.
      log_temperature: the logarithm of t.
    """

    radius: Scalar
    log_temperature: Scalar


def init(radius: float = 2.0, temperature: float = 1.0) -> FermiDirac:
    """Returns a decoder.

    Raises:
      ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    return FermiDirac(jnp.float32(radius), jnp.log(jnp.float32(temperature)))


def logits(decoder: FermiDirac, squared_distances: Float[AnyArray, "*n"]) -> Float[Array, "*n"]:
    """Returns the log-odds of an edge, ``(r - d^2) / t``."""
    return (jnp.asarray(decoder.radius) - jnp.asarray(squared_distances)) / jnp.exp(decoder.log_temperature)


def loss(decoder: FermiDirac, positives: Float[AnyArray, " p"], negatives: Float[AnyArray, " q"]) -> Float[Array, ""]:
    """Returns the mean nats of edges plus those of non-edges, by their squared distances."""
    return -jnp.mean(jax.nn.log_sigmoid(logits(decoder, positives))) - jnp.mean(
        jax.nn.log_sigmoid(-logits(decoder, negatives))
    )


def collapsed_loss(decoder: FermiDirac) -> Float[Array, ""]:
    """Returns the loss of a model whose nodes all lie in one point.

    >>> round(float(collapsed_loss(init())), 4)
    2.2539
    """
    return loss(decoder, jnp.zeros(1), jnp.zeros(1))


def is_collapsed(scores: Float[AnyArray, "*n"], *, tolerance: float = 1e-6) -> bool:
    """Returns whether all scores are one number, up to rounding."""
    scores = np.asarray(scores, np.float64)
    return bool(np.ptp(scores) <= tolerance * max(1.0, float(np.abs(scores).max())))


def warn_if_collapsed(name: str, scores: Float[AnyArray, "*n"], decoder: FermiDirac) -> bool:
    """Warns, and returns True, if a model scores all pairs alike; its area under the ROC curve would be a coin's."""
    if not is_collapsed(scores):
        return False
    value = float(collapsed_loss(decoder))
    warnings.warn(f"{name} gives all pairs one score (the loss of one point is {value:.4f})", CollapseWarning, 2)
    return True
