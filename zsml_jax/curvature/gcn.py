r"""Graph convolutions on products of curved spaces, and link prediction with them.

One model covers four. Every node has a point in each factor, in stereographic coordinates, and a layer is::

    H' = act( A [+] ( H [x] W [+] b ) )

with the linear map :math:`\exp_0(W \log_0 h)`, a bias by Möbius addition, and one of three ways to aggregate:

- ``tangent``: :math:`\exp_0(\hat A \log_0 h)`, the product GCN of McNeela, Sala and Gitter (2024) after HGCN
  (Chami et al., 2019), here with one distance for each pair and curvatures that are learned;
- ``gyromidpoint``: the weighted midpoint of the neighbours, the kappa-GCN of Bachmann et al. (ICML 2020);
- ``sage``: the mean of the neighbours beside the node itself, each with a kernel (Hamilton et al., 2017).

With one flat factor the first is the GCN of Kipf and Welling (2017), with rows of :math:`A + I` scaled to one.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from zsml_jax.curvature import decoder, stereographic
from zsml_jax.curvature.decoder import FermiDirac
from zsml_jax.typing import AnyArray, Array, Key, Scalar

Aggregation = Literal["tangent", "gyromidpoint", "sage"]


@dataclasses.dataclass(frozen=True)
class GcnConfig:
    """The static part of a model."""

    kinds: tuple[str, ...]
    """The kind of each factor: h, e and s keep the sign of their curvature, k may change it."""
    widths: tuple[tuple[int, ...], ...]
    """Of each factor, the dimension of its features and then of each layer."""
    aggregation: Aggregation = "tangent"
    """How neighbours are put together."""
    bias: bool = True
    """Whether layers have a bias."""

    def __post_init__(self):
        if not self.kinds or set(self.kinds) - set("hesk"):
            raise ValueError(f"kinds must be of 'h', 'e', 's' and 'k', at least one, got {self.kinds}")
        if len(self.widths) != len(self.kinds) or len({len(w) for w in self.widths}) != 1 or len(self.widths[0]) < 2:
            raise ValueError(
                f"widths must give each of {len(self.kinds)} factors a feature and a layer width, got {self.widths}"
            )
        if self.aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation must be one of {get_args(Aggregation)}, got {self.aggregation!r}")


class Layer(NamedTuple):
    """One layer of one factor.

    Attributes:
      kernel: ``(m, d)``.
      own_kernel: of the node itself under ``sage``, else None.
      bias: a tangent vector at the origin, ``(d,)``, or None.
    """

    kernel: Float[Array, "m d"]
    own_kernel: Float[Array, "m d"] | None
    bias: Float[Array, " d"] | None


class Gcn(NamedTuple):
    """The parameters.

    Attributes:
      layers: of each factor, its layers.
      curvature: of each factor: of h and s the logarithm of its absolute value, of k itself, ``(f,)``.
      decoder: from squared distances to log-odds.
    """

    layers: tuple[tuple[Layer, ...], ...]
    curvature: Float[Array, " f"]
    decoder: FermiDirac


def init(config: GcnConfig, *, key: Key) -> Gcn:
    """Returns fresh parameters: Glorot kernels, no bias, curvatures of -1, 0 and 1, and 0 for k."""
    glorot, layers = jax.nn.initializers.glorot_uniform(), []
    for f, widths in enumerate(config.widths):
        factor = []
        for number, (m, d) in enumerate(itertools.pairwise(widths)):
            first, second = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, f), number))
            own = glorot(second, (m, d), jnp.float32) if config.aggregation == "sage" else None
            bias = jnp.zeros(d) if config.bias else None
            factor.append(Layer(glorot(first, (m, d), jnp.float32), own, bias))
        layers.append(tuple(factor))
    return Gcn(tuple(layers), jnp.zeros(len(config.kinds)), decoder.init())


def kappas(config: GcnConfig, params: Gcn) -> Float[Array, " f"]:
    """Returns the curvature of each factor."""
    sign = jnp.array([{"h": -1.0, "s": 1.0}.get(kind, 0.0) for kind in config.kinds])
    free = jnp.array([kind == "k" for kind in config.kinds])
    return jnp.where(free, params.curvature, sign * jnp.exp(params.curvature))


def row_normalised(adjacency: Bool[AnyArray, "n n"]) -> Float[Array, "n n"]:
    r"""Returns :math:`\hat A`, the adjacency with a loop at each node, its rows scaled to one."""
    links = jnp.asarray(adjacency, jnp.float32) + jnp.eye(len(adjacency))
    return links / links.sum(axis=1, keepdims=True)


@jax.default_matmul_precision("highest")
def embed(
    config: GcnConfig,
    params: Gcn,
    features: Sequence[Float[Array, "n _"]],
    propagate: Float[Array, "n n"],
    *,
    dropout: Scalar = 0.0,
    key: Key | None = None,
) -> tuple[Float[Array, "n _"], ...]:
    """Returns the points of all nodes in each factor, in stereographic coordinates.

    Args:
      config: of the model.
      params: of the model.
      features: of each factor, tangent vectors at the origin, ``(n, m)``.
      propagate: what :func:`row_normalised` returns.
      dropout: share of tangent coordinates that a layer forgets; traced.
      key: of the dropout; None switches it off.
    """
    found = []
    for f, (x, layers, kappa) in enumerate(zip(features, params.layers, kappas(config, params), strict=True)):
        h = stereographic.project(stereographic.exp0(x, kappa), kappa)
        for number, layer in enumerate(layers):
            tangent = stereographic.log0(h, kappa)
            if key is not None:
                kept = jax.random.bernoulli(jax.random.fold_in(key, 1000 * f + number), 1 - dropout, tangent.shape)
                tangent = jnp.where(kept, tangent / (1 - dropout), 0)
            h = _layer(config, layer, tangent, propagate, kappa, last=number == len(layers) - 1)
        found.append(h)
    return tuple(found)


def squared_distances(config: GcnConfig, params: Gcn, points: Sequence[Float[Array, "n _"]]) -> Float[Array, "n n"]:
    """Returns one squared distance for each pair: the sum of those in the factors."""
    curvature = kappas(config, params)
    each = [stereographic.all_distances(x, k) ** 2 for x, k in zip(points, curvature, strict=True)]
    total = jnp.sum(jnp.stack(each), axis=0)
    if total.shape != (len(points[0]),) * 2:
        raise AssertionError(f"one squared distance a pair was expected, got the shape {total.shape}")
    return total


def _layer(config: GcnConfig, layer: Layer, tangent: Array, propagate: Array, kappa: Array, *, last: bool) -> Array:
    if layer.own_kernel is not None:
        loops = jnp.diagonal(propagate)[:, None]
        others = (propagate @ tangent - loops * tangent) / jnp.where(loops < 1, 1 - loops, 1)
        h = stereographic.exp0(others @ layer.kernel + tangent @ layer.own_kernel, kappa)
    else:
        h = stereographic.exp0(tangent @ layer.kernel, kappa)
    if layer.bias is not None:
        h = stereographic.add(stereographic.project(h, kappa), stereographic.exp0(layer.bias, kappa), kappa)
    h = stereographic.project(h, kappa)
    if config.aggregation == "tangent":
        h = stereographic.exp0(propagate @ stereographic.log0(h, kappa), kappa)
    elif config.aggregation == "gyromidpoint":
        h = _midpoints(h, propagate, kappa)
    if not last:
        h = stereographic.exp0(jax.nn.relu(stereographic.log0(h, kappa)), kappa)
    return stereographic.project(h, kappa)


def _midpoints(x: Array, weights: Array, kappa: Array) -> Array:
    """The gyromidpoint of all points for each row of weights, by one matrix product."""
    factor = stereographic.conformal_factor(x, kappa)[:, None]
    # Both sums at once: of the points, and of what their conformal factors exceed one by.
    sums = weights @ jnp.concatenate([factor * x, factor - 1], axis=1)
    return stereographic.midpoint_of_sums(sums[:, :-1], sums[:, -1:], kappa)
