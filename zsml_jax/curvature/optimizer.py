r"""Riemannian SGD and Adam as optax transformations, for parameters of which some live in curved spaces.

Bonnabel, "Stochastic Gradient Descent on Riemannian Manifolds", 2013; Bécigneul and Ganea, "Riemannian Adaptive
Optimization Methods", ICLR 2019. Parameters are tagged by a tree of :class:`~zsml_jax.curvature.spaces.Space`, a prefix
of theirs, or by a function from the parameters to such a tree where curvatures are parameters too::

    spaces = lambda p: {"points": Points(manifold.spaces(product, p["curvature"]), product), "curvature": Euclidean()}
    optimizer = optax.chain(riemannian_adam(0.01, spaces))

What they return is the difference to the new point, as ``optax.apply_updates`` wants it, and the new point lies on its
space again. Curvatures get a rate of their own by ``optax.partition`` or ``rates``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from zsml_jax.curvature.spaces import Space, is_space
from zsml_jax.typing import Array, PyTree, Scalar

#: A tree of spaces that is a prefix of the parameters', or a function that makes it of them.
Spaces = PyTree | Callable[[PyTree], PyTree]


class AdamState(NamedTuple):
    """The state of :func:`riemannian_adam`.

    Attributes:
      count: steps done.
      mean: the transported mean of gradients, as the parameters.
      square: the mean of squares, one number for each point of a curved space.
    """

    count: Int[Array, ""]
    mean: PyTree
    square: PyTree


class SgdState(NamedTuple):
    """The state of :func:`riemannian_sgd`.

    Attributes:
      velocity: the transported sum of gradients, as the parameters.
    """

    velocity: PyTree


def riemannian_sgd(
    rate: PyTree, spaces: Spaces, *, momentum: Array | float = 0.0, clip_step: Scalar | None = None
) -> optax.GradientTransformation:
    """Gradient descent along geodesics, its momentum carried along by parallel transport.

    Args:
      rate: the learning rate, or a prefix tree of rates; traced.
      spaces: where the parameters live.
      momentum: the share of the earlier direction that is kept.
      clip_step: the longest step of a point, in the metric of its space.
    """

    def init(params: PyTree) -> SgdState:
        return SgdState(jax.tree.map(jnp.zeros_like, params))

    def update(gradients: PyTree, state: SgdState, params: PyTree | None = None) -> tuple[PyTree, SgdState]:
        params = _needed(params)

        def one(space: Space, x: Array, gradient: Array, velocity: Array, rate: Any) -> tuple[Array, Array]:
            velocity = momentum * velocity + space.gradient(x, gradient)
            new = space.exp(x, _clipped(space, x, -rate * velocity, clip_step))
            return new - x, space.transport(x, new, velocity)

        updates, velocity = _mapped(one, 2, spaces, params, gradients, state.velocity, rate=rate)
        return updates, SgdState(velocity)

    return optax.GradientTransformation(init, update)  # pyrefly: ignore[bad-argument-type]


def riemannian_adam(
    rate: PyTree,
    spaces: Spaces,
    *,
    b1: Array | float = 0.9,
    b2: Array | float = 0.999,
    eps: Scalar = 1e-8,
    clip_step: Scalar | None = None,
) -> optax.GradientTransformation:
    """Adam along geodesics; a point of a curved space has one second moment, that of the length of its gradient.

    Args:
      rate: the learning rate, or a prefix tree of rates; traced.
      spaces: where the parameters live.
      b1: decay of the mean of gradients.
      b2: decay of the mean of squares.
      eps: added to the root of the mean of squares.
      clip_step: the longest step of a point, in the metric of its space.
    """

    def init(params: PyTree) -> AdamState:
        empty = lambda space, x: (jnp.zeros_like(x), jnp.zeros(jax.eval_shape(space.squares, x, x).shape, x.dtype))
        mean, square = _mapped(lambda s, x, _: empty(s, x), 2, spaces, params, rate=0.0)
        return AdamState(jnp.zeros((), jnp.int32), mean, square)

    def update(gradients: PyTree, state: AdamState, params: PyTree | None = None) -> tuple[PyTree, AdamState]:
        params, count = _needed(params), state.count + 1

        def one(
            space: Space, x: Array, gradient: Array, mean: Array, square: Array, rate: Any
        ) -> tuple[Array, Array, Array]:
            gradient = space.gradient(x, gradient)
            mean = b1 * mean + (1 - b1) * gradient
            square = b2 * square + (1 - b2) * space.squares(x, gradient)
            steps = count.astype(x.dtype)
            direction = mean / (1 - b1**steps) / (jnp.sqrt(square / (1 - b2**steps)) + eps)
            new = space.exp(x, _clipped(space, x, -rate * direction, clip_step))
            return new - x, space.transport(x, new, mean), square

        updates, mean, square = _mapped(one, 3, spaces, params, gradients, state.mean, state.square, rate=rate)
        return updates, AdamState(count, mean, square)

    return optax.GradientTransformation(init, update)  # pyrefly: ignore[bad-argument-type]


def _clipped(space: Space, x: Array, step: Float[Array, "..."], most: Scalar | None) -> Float[Array, "..."]:
    if most is None:
        return step
    length = space.length(x, step)
    return step * jnp.where(length > most, most / jnp.where(length > most, length, 1), 1)


def _mapped(
    function: Callable[..., tuple], outputs: int, spaces: Spaces, params: PyTree, *trees: PyTree, rate: Any
) -> tuple[PyTree, ...]:
    """Maps over the leaves of the parameters, each with its space and its rate."""
    tags = spaces(params) if callable(spaces) else spaces
    leaves, treedef = jax.tree.flatten(params)
    tagged = _spread(tags, params, is_space)
    rates = _spread(rate, params, None)
    columns = [treedef.flatten_up_to(tree) for tree in trees]
    rows = [function(*row) for row in zip(tagged, leaves, *columns, rates, strict=True)]
    return tuple(treedef.unflatten([row[i] for row in rows]) for i in range(outputs))


def _spread(prefix: PyTree, params: PyTree, is_leaf: Callable[[Any], bool] | None) -> list[Any]:
    """Returns what a prefix tree says of each leaf of the parameters."""
    spread: list[Any] = []
    jax.tree.map(lambda tag, part: spread.extend([tag] * len(jax.tree.leaves(part))), prefix, params, is_leaf=is_leaf)
    return spread


def _needed(params: PyTree | None) -> PyTree:
    if params is None:
        raise ValueError("params must be given to update: a Riemannian step depends on the point")
    return params
