r"""Logistic regressions of few features, thousands at a time, by Newton's method.

Each minimises :math:`C \sum_i w_i \, \mathrm{nll}_i + \tfrac12 \lVert W \rVert^2` with a free intercept, which is the
multinomial logistic regression of scikit-learn, and with two classes its binary one. A Hessian has
:math:`k (c + 1)` rows for c features, so that a dozen Newton steps for all features cost less than one pass over them
in a loop.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array, Scalar


@flax.struct.dataclass
class Logistic:
    """One regression for each of h sets of c features, a pytree.

    Attributes:
      feature: the columns that each reads, ``(h, c)``.
      weights: ``(h, c, k)``.
      bias: ``(h, k)``.
    """

    feature: Int[AnyArray, "*batch h c"]
    weights: Float[AnyArray, "*batch h c k"]
    bias: Float[AnyArray, "*batch h k"]

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n h k"]:
        """Returns the class probabilities of each example by each regression."""
        x = jnp.asarray(features)[:, self.feature]
        logits = jnp.einsum("nhc,hck->nhk", x, self.weights, precision="highest") + self.bias
        return jax.nn.softmax(logits, axis=-1)


@jax.default_matmul_precision("highest")
def fit(
    features: Float[Array, "n d"],
    labels: Int[Array, " n"],
    weights: Float[Array, " n"],
    k: int,
    combinations: Int[AnyArray, "h c"],
    *,
    inverse_penalty: Scalar = 1.0,
    steps: int = 12,
) -> Logistic:
    """Fits one regression for each combination of features.

    Args:
      features: one row an example.
      labels: class indices.
      weights: of each example, zero to leave it out.
      k: the number of classes.
      combinations: the columns that each regression reads.
      inverse_penalty: C, what the loss is multiplied with beside the penalty.
      steps: Newton steps, each halved until it lowers the loss.

    Returns:
      The regressions. Features are standardised within, which changes nothing of the result but its rounding.
    """
    columns = jnp.asarray(combinations)
    # With two classes one row of weights, twice as long in logits, has the penalty of scikit-learn's binary form.
    solve = functools.partial(_binary if k == 2 else _multinomial, steps=steps)
    one = lambda chosen: solve(features[:, chosen], labels, weights, k, jnp.asarray(inverse_penalty, features.dtype))
    weight, bias = jax.vmap(one)(columns)
    return Logistic(columns, weight, bias)


def _binary(x: Array, labels: Array, weights: Array, k: int, c: Array, *, steps: int) -> tuple[Array, Array]:
    target = (labels == 1).astype(x.dtype)

    def loss(parameters: Array) -> Array:
        logits = x @ parameters[:-1] + parameters[-1]
        nll = jax.nn.softplus(logits) - target * logits
        return c * (weights * nll).sum() + 0.5 * (parameters[:-1] ** 2).sum()

    found = _newton(loss, jnp.zeros(x.shape[1] + 1, x.dtype), steps)
    column = jnp.concatenate([jnp.zeros_like(found[:, None]), found[:, None]], axis=1)
    return column[:-1], column[-1]


def _multinomial(x: Array, labels: Array, weights: Array, k: int, c: Array, *, steps: int) -> tuple[Array, Array]:
    target = jax.nn.one_hot(labels, k, dtype=x.dtype)
    shape = (x.shape[1] + 1, k)

    def loss(parameters: Array) -> Array:
        table = parameters.reshape(shape)
        log_probs = jax.nn.log_softmax(x @ table[:-1] + table[-1], axis=1)
        return -c * (weights[:, None] * target * log_probs).sum() + 0.5 * (table[:-1] ** 2).sum()

    table = _newton(loss, jnp.zeros(shape[0] * shape[1], x.dtype), steps).reshape(shape)
    return table[:-1], table[-1] - table[-1].mean()


def _newton(loss: Callable[[Array], Array], start: Array, steps: int) -> Array:
    gradient, hessian = jax.grad(loss), jax.hessian(loss)
    halvings = 0.5 ** jnp.arange(8)

    def step(parameters: Array, _: None) -> tuple[Array, None]:
        # A class without examples leaves a direction flat; the small ridge keeps the system solvable.
        h = hessian(parameters)
        ridge = 1e-6 * (1 + jnp.trace(h) / len(start))
        direction = jnp.linalg.solve(h + ridge * jnp.eye(len(start), dtype=start.dtype), gradient(parameters))
        direction = direction * jnp.minimum(1, 20 / jnp.maximum(jnp.abs(direction).max(), 1e-12))
        values = jax.vmap(lambda scale: loss(parameters - scale * direction))(halvings)
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        better = values[best] < loss(parameters)
        return jnp.where(better, parameters - halvings[best] * direction, parameters), None

    return jax.lax.scan(step, start, None, length=steps)[0]
