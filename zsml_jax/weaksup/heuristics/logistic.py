r"""Logistic regressions of few features, thousands at a time, by Newton's method.

Each minimises :math:`C \sum_i w_i \, \mathrm{nll}_i + \tfrac12 \lVert W \rVert^2` with a free intercept, which is the
multinomial logistic regression of scikit-learn, and with two classes its binary one. A Hessian has
:math:`k (c + 1)` rows for c features, so that a dozen Newton steps for all features cost less than one pass over them
in a loop.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from zsml_jax.evaluate.newton import SecondOrder, minimize
from zsml_jax.typing import AnyArray, Array, Scalar

#: The largest change of a weight in one step, nats.
_LARGEST_STEP = 20.0


@flax.struct.dataclass
class Logistic:
    """One regression for each of h sets of c features, a pytree.

    Attributes:
      feature: the columns that each reads, ``(h, c)``.
      centre: what is subtracted from them, ``(h, c)``.
      weights: ``(h, c, k)``.
      bias: at the centre, ``(h, k)``.
    """

    feature: Int[AnyArray, "*batch h c"]
    centre: Float[AnyArray, "*batch h c"]
    weights: Float[AnyArray, "*batch h c k"]
    bias: Float[AnyArray, "*batch h k"]

    def probs(self, features: Float[AnyArray, "n d"]) -> Float[Array, "n h k"]:
        """Returns the class probabilities of each example by each regression."""
        x = jnp.asarray(features)[:, self.feature] - self.centre
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
    max_iterations: int = 30,
) -> Logistic:
    """Fits one regression for each combination of features.

    Args:
      features: one row an example.
      labels: class indices.
      weights: of each example, zero to leave it out.
      k: the number of classes.
      combinations: the columns that each regression reads.
      inverse_penalty: C, what the loss is multiplied with beside the penalty.
      max_iterations: Newton steps at most, refused ones included.

    Returns:
      The regressions, about the weighted mean of the features: the intercept is free, so that only rounding changes.
    """
    columns, total = jnp.asarray(combinations), weights.sum()
    centre = (weights / jnp.where(total > 0, total, 1)) @ features
    x = features - centre
    # With two classes one row of weights, twice as long in logits, has the penalty of scikit-learn's binary form.
    solve = _binary if k == 2 else _multinomial
    c = jnp.asarray(inverse_penalty, features.dtype)
    one = lambda chosen: solve(x[:, chosen], labels, weights, k, c, max_iterations)
    weight, bias = jax.vmap(one)(columns)
    return Logistic(columns, centre[columns], weight, bias)


def _binary(x: Array, labels: Array, weights: Array, k: int, c: Array, max_iterations: int) -> tuple[Array, Array]:
    target = (labels == 1).astype(x.dtype)
    design = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)
    ridge = jnp.ones(design.shape[1], x.dtype).at[-1].set(0)

    def second_order(a: Array) -> tuple[Array, Array, Array]:
        logits = design @ a
        p = jax.nn.sigmoid(logits)
        value = c * (weights * (jax.nn.softplus(logits) - target * logits)).sum() + 0.5 * (ridge * a**2).sum()
        gradient = design.T @ (c * weights * (p - target)) + ridge * a
        hessian = (design * (c * weights * p * (1 - p))[:, None]).T @ design + jnp.diag(ridge)
        return value, gradient, hessian

    found = _minimum(second_order, design.shape[1], c * weights.sum(), max_iterations)
    column = jnp.concatenate([jnp.zeros_like(found[:, None]), found[:, None]], axis=1)
    return column[:-1], column[-1]


def _multinomial(x: Array, labels: Array, weights: Array, k: int, c: Array, max_iterations: int) -> tuple[Array, Array]:
    target = jax.nn.one_hot(labels, k, dtype=x.dtype)
    shape = (x.shape[1] + 1, k)

    def loss(parameters: Array) -> Array:
        table = parameters.reshape(shape)
        log_probs = jax.nn.log_softmax(x @ table[:-1] + table[-1], axis=1)
        return -c * (weights[:, None] * target * log_probs).sum() + 0.5 * (table[:-1] ** 2).sum()

    gradient, hessian = jax.grad(loss), jax.hessian(loss)
    second_order = lambda a: (loss(a), gradient(a), hessian(a))
    table = _minimum(second_order, math.prod(shape), c * weights.sum(), max_iterations).reshape(shape)
    return table[:-1], table[-1] - table[-1].mean()


def _minimum(function: SecondOrder, p: int, scale: Array, max_iterations: int) -> Array:
    start = jnp.zeros(p, scale.dtype)
    return minimize(
        function, start, tolerance=1e-6 * (1 + scale), max_iterations=max_iterations, max_step=_LARGEST_STEP
    ).x
