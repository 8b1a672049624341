"""Confidence that needs no fit: the softmax's maximum, the energy, the margin."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.autolabel.outputs import Outputs, own
from zsml_jax.typing import Array, Key, Scalar

_register = functools.partial(jax.tree_util.register_dataclass, meta_fields=[])


@functools.partial(_register, data_fields=[])
@dataclasses.dataclass(frozen=True)
class Softmax:
    """The softmax probability of the predicted class (Hendrycks and Gimpel, 2017)."""

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> tuple:
        """Returns nothing: there is nothing to fit."""
        del outputs, labels, weights, key
        return ()

    def score(self, fitted: tuple, outputs: Outputs) -> Float[Array, " n"]:
        """Returns probabilities in (0, 1].

        >>> two = Outputs(jnp.log(jnp.array([[1.0, 3.0]])), jnp.zeros((1, 0)))
        >>> round(float(Softmax().score((), two)[0]), 4)
        0.75
        """
        del fitted
        return jax.nn.softmax(outputs.logits, axis=1).max(axis=1)


@functools.partial(_register, data_fields=[])
@dataclasses.dataclass(frozen=True)
class Margin:
    """The probability of the predicted class less that of the second one (Scheffer et al., 2001)."""

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> tuple:
        """Returns nothing: there is nothing to fit."""
        del outputs, labels, weights, key
        return ()

    def score(self, fitted: tuple, outputs: Outputs) -> Float[Array, " n"]:
        """Returns margins in [0, 1].

        >>> two = Outputs(jnp.log(jnp.array([[1.0, 3.0]])), jnp.zeros((1, 0)))
        >>> round(float(Margin().score((), two)[0]), 4)
        0.5
        """
        del fitted
        return probability_margin(outputs.logits)


@functools.partial(_register, data_fields=["temperature"])
@dataclasses.dataclass(frozen=True)
class Energy:
    r"""The negative free energy, :math:`T \log \sum_j \exp(z_j / T)` (Liu et al., 2020, equation 4).

    Attributes:
      temperature: T, positive.
    """

    temperature: Scalar = 1.0

    def fit(self, outputs: Outputs, labels: Int[Array, " n"], *, weights: Float[Array, " n"], key: Key) -> tuple:
        """Returns nothing: there is nothing to fit."""
        del outputs, labels, weights, key
        return ()

    def score(self, fitted: tuple, outputs: Outputs) -> Float[Array, " n"]:
        """Returns energies in nats.

        >>> two = Outputs(jnp.log(jnp.array([[1.0, 3.0]])), jnp.zeros((1, 0)))
        >>> round(float(Energy().score((), two)[0]), 4) == round(float(jnp.log(4.0)), 4)
        True
        """
        del fitted
        temperature = jnp.asarray(self.temperature)
        return temperature * jax.nn.logsumexp(outputs.logits / temperature, axis=1)


def probability_margin(logits: Float[Array, "n k"]) -> Float[Array, " n"]:
    """Returns the largest softmax probability less the second one; 1 where there is one class."""
    if logits.shape[1] == 1:
        return jnp.ones(len(logits), logits.dtype)
    top = jax.lax.top_k(jax.nn.softmax(logits, axis=1), 2)[0]
    return top[:, 0] - top[:, 1]


def log_odds(logits: Float[Array, "n k"], predicted: Int[Array, " n"]) -> Float[Array, " n"]:
    """Returns the log-odds of the predicted class, ``log(p / (1 - p))``, in nats, without rounding p to one."""
    others = jnp.where(jnp.arange(logits.shape[1]) == predicted[:, None], -jnp.inf, logits)
    return own(logits, predicted) - jax.nn.logsumexp(others, axis=1)
