"""Mixtures by EM, with the responsibilities of labelled examples clamped to their class, or free."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array


@flax.struct.dataclass
class Gaussians:
    """A mixture of k Gaussians with diagonal covariance, a pytree.

    Attributes:
      log_weights: ``(k,)``.
      means: ``(k, p)``.
      variances: ``(k, p)``.
    """

    log_weights: Float[AnyArray, "*batch k"]
    means: Float[AnyArray, "*batch k p"]
    variances: Float[AnyArray, "*batch k p"]

    def log_joint(self, x: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Returns the log-density of each example together with each component, nats."""
        means, variances = jnp.asarray(self.means), jnp.asarray(self.variances)
        # Of the differences themselves: as a product of matrices the squares of narrow components are lost in float32.
        squares = jax.vmap(lambda mean, variance: ((x - mean) ** 2 / variance).sum(axis=1), out_axes=1)(
            means, variances
        )
        return jnp.asarray(self.log_weights) - 0.5 * (squares + jnp.log(2 * jnp.pi * variances).sum(axis=1))


@flax.struct.dataclass
class Bernoullis:
    """A mixture of k products of Bernoullis, a pytree.

    Attributes:
      log_weights: ``(k,)``.
      rates: ``(k, p)``, at least 1e-5 away from 0 and 1.
    """

    log_weights: Float[AnyArray, "*batch k"]
    rates: Float[AnyArray, "*batch k p"]

    def log_joint(self, x: Float[Array, "n p"]) -> Float[Array, "n k"]:
        """Returns the log-probability of each example together with each component, nats."""
        rates = jnp.asarray(self.rates)
        return jnp.asarray(self.log_weights) + _product(x, jnp.log(rates).T) + _product(1 - x, jnp.log1p(-rates).T)


class MixtureFit(NamedTuple):
    """Where EM ended, a pytree.

    Attributes:
      mixture: the fitted mixture.
      responsibilities: of the fitted examples, ``(n, k)``.
      log_likelihood: the mean of the free examples, nats, after each step; with clamped examples it may fall.
      converged: whether the responsibilities changed by no more than the tolerance in the last step.
    """

    mixture: Gaussians | Bernoullis
    responsibilities: Float[Array, "n k"]
    log_likelihood: Float[Array, " steps"]
    converged: Bool[Array, ""]


def fit_gaussians(
    x: Float[Array, "n p"], start: Float[Array, "n k"], *, clamped: Bool[Array, " n"], steps: int, floor: float = 1e-6
) -> MixtureFit:
    """Fits Gaussians from starting responsibilities.

    Args:
      x: one row an example.
      start: the responsibilities to begin with, and to keep where ``clamped``.
      clamped: which examples keep theirs.
      steps: EM steps.
      floor: added to each variance.
    """

    def maximize(r: Array) -> Gaussians:
        size = r.sum(axis=0)[:, None] + 1e-10
        means = _product(r.T, x) / size
        squares = jax.vmap(lambda own, mean: (own[:, None] * (x - mean) ** 2).sum(axis=0))(r.T, means)
        variances = squares / size + floor
        return Gaussians(jnp.log(size[:, 0] / size.sum()), means, variances)

    return _em(x, start, clamped, maximize, steps)


def fit_bernoullis(
    x: Float[Array, "n p"], start: Float[Array, "n k"], *, clamped: Bool[Array, " n"], steps: int, floor: float = 1e-5
) -> MixtureFit:
    """Fits Bernoullis from starting responsibilities.

    Args:
      x: one row of zeros and ones an example.
      start: as for :func:`fit_gaussians`.
      clamped: as for :func:`fit_gaussians`.
      steps: EM steps.
      floor: how near a rate may come to 0 and 1.
    """

    def maximize(r: Array) -> Bernoullis:
        size = r.sum(axis=0)[:, None] + 1e-10
        rates = jnp.clip(_product(r.T, x) / size, floor, 1 - floor)
        return Bernoullis(jnp.log(size[:, 0] / size.sum()), rates)

    return _em(x, start, clamped, maximize, steps)


def _em(x: Array, start: Array, clamped: Array, maximize: Callable[[Array], Any], steps: int) -> MixtureFit:
    free = (~clamped).sum()

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        r = state[0]
        joint = maximize(r).log_joint(x)
        evidence = jax.scipy.special.logsumexp(joint, axis=1)
        following = jnp.where(clamped[:, None], start, jnp.exp(joint - evidence[:, None]))
        likelihood = jnp.where(clamped, 0, evidence).sum() / jnp.maximum(free, 1)
        return (following, jnp.abs(following - r).max()), likelihood

    (r, change), course = jax.lax.scan(step, (start, jnp.asarray(jnp.inf, x.dtype)), None, length=steps)
    return MixtureFit(maximize(r), r, course, converged=change <= 1e-4)


def _product(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision="highest")
