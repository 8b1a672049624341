r"""How well distances in an embedding are those of a graph: losses to minimise, and the measures that are reported.

Gu, Sala, Gunel and Ré, ICLR 2019, section 2; Sala, De Sa, Gu and Ré, "Representation Tradeoffs for Hyperbolic
Embeddings", ICML 2018. All take matrices of distances, or any arrays of pairs, with :math:`d_P` those of the points and
:math:`d_G` those of the graph.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.typing import AnyArray, Array

#: ``squared_relative`` :math:`(d_P/d_G - 1)^2`; ``gu`` :math:`|(d_P/d_G)^2 - 1|`, equation 2 of Gu et al.; ``absolute``
#: :math:`|d_P - d_G|`; ``symmetric`` :math:`(d_P - d_G)^2 / (d_P d_G)`, which punishes contraction as expansion;
#: ``log`` :math:`\log^2(d_P/d_G)`.
Loss = Literal["squared_relative", "gu", "absolute", "symmetric", "log"]

_LEAST = 1e-4


def pair_losses(
    points: Float[AnyArray, "*n"], graph: Float[AnyArray, "*n"], loss: Loss = "squared_relative"
) -> Float[Array, "*n"]:
    """Returns the loss of each pair.

    >>> pair_losses(jnp.array([1.0, 3.0]), jnp.array([1.0, 2.0])).tolist()
    [0.0, 0.25]

    Args:
      points: distances in the embedding.
      graph: distances in the graph, positive and finite.
      loss: which one; ``symmetric`` and ``log`` count distances below 1e-4 as that.

    Raises:
      ValueError: if the loss is unknown.
    """
    points, graph = jnp.asarray(points), jnp.asarray(graph)
    if loss == "squared_relative":
        return (points / graph - 1) ** 2
    if loss == "gu":
        return jnp.abs((points / graph) ** 2 - 1)
    if loss == "absolute":
        return jnp.abs(points - graph)
    if loss == "symmetric":
        return (points - graph) ** 2 / (jnp.maximum(points, _LEAST) * graph)
    if loss == "log":
        return jnp.log(jnp.maximum(points, _LEAST) / graph) ** 2
    raise ValueError(f"loss must be one of {get_args(Loss)}, got {loss!r}")


def average_distortion(
    points: Float[AnyArray, "n m"], graph: Float[AnyArray, "n m"], pairs: Bool[AnyArray, "n m"]
) -> Float[Array, ""]:
    r"""Returns the mean of :math:`|d_P - d_G| / d_G` over the pairs."""
    error = jnp.abs(points - graph) / jnp.where(pairs, graph, 1)
    return jnp.sum(jnp.where(pairs, error, 0)) / jnp.maximum(jnp.sum(pairs), 1)


def worst_case_distortion(
    points: Float[AnyArray, "n m"], graph: Float[AnyArray, "n m"], pairs: Bool[AnyArray, "n m"]
) -> Float[Array, ""]:
    r"""Returns the largest expansion :math:`d_P/d_G` times the largest contraction, whatever the scale; 1 is best."""
    ratio = jnp.where(pairs, points / jnp.where(pairs, graph, 1), 1)
    return jnp.max(jnp.where(pairs, ratio, -jnp.inf)) / jnp.min(jnp.where(pairs, ratio, jnp.inf))


def mean_average_precision(
    points: Float[AnyArray, "n m"], neighbours: Bool[AnyArray, "n m"], candidates: Bool[AnyArray, "n m"]
) -> Float[Array, ""]:
    r"""Returns how purely the neighbours of a node are the points nearest to it.

    :math:`\frac1{|V|}\sum_a \frac1{|N(a)|}\sum_{b \in N(a)} |N(a) \cap R_{ab}| / |R_{ab}|`, where :math:`R_{ab}` are
    the points at least as near to a as b is. Nodes without neighbours do not count.

    Args:
      points: distances in the embedding of some nodes to all, ``(n, m)``.
      neighbours: which of them are edges.
      candidates: which of them count at all: not a node itself, and no padding.
    """

    def one(row: Array, near: Array, counted: Array) -> Array:
        reached = jnp.searchsorted(jnp.sort(jnp.where(counted, row, jnp.inf)), row, side="right")
        right = jnp.searchsorted(jnp.sort(jnp.where(near, row, jnp.inf)), row, side="right")
        precision = right / jnp.maximum(reached, 1)
        return jnp.sum(jnp.where(near, precision, 0)) / jnp.maximum(jnp.sum(near), 1)

    near = jnp.asarray(neighbours) & jnp.asarray(candidates)
    each = jax.vmap(one)(jnp.asarray(points), near, jnp.asarray(candidates))
    counted = near.any(axis=1)
    return jnp.sum(jnp.where(counted, each, 0)) / jnp.maximum(jnp.sum(counted), 1)
