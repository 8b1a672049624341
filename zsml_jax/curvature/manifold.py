r"""Products of curved spaces: their signature, their points, and what is computed factor by factor.

Gu, Sala, Gunel and Ré, "Learning Mixed-Curvature Representations in Product Spaces", ICLR 2019. A signature names the
factors::

    product = Product((("h", 2, 16), ("e", 1, 32), ("s", 1, 16)))    # two H^16, one E^32, one S^16
    params = init(product)                                           # log-scales and curvatures, learnable
    x = random_points(product, params, (10,), key=key)
    distance(product, params, x[:, None], x[None, :])                # (10, 10)

Kinds are ``h`` (hyperboloid) and ``s`` (sphere), of curvature :math:`\mp e^{-2 s}` with a learnable log-scale s, ``e``
(Euclidean), and ``k``, the stereographic space whose learnable curvature may cross zero. The points of a product keep
each group of factors in an array of its own, beside the signature that says what it is: there are no offsets into a
long vector that could be wrong by the one coordinate more that a hyperboloid has.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.curvature import ambient, stereographic
from zsml_jax.curvature.curved_trig import safe_sqrt
from zsml_jax.curvature.spaces import Ambient, Space, Stereographic
from zsml_jax.typing import Array, Key, Scalar

#: How the distances in the factors make one: the Riemannian root of squares, the sum, or the least.
Reduction = Literal["l2", "l1", "min"]

_SIGN = {"h": -1.0, "e": 0.0, "s": 1.0}


class Factors(NamedTuple):
    """A group of equal factors: their kind, how many there are, and the dimension of each."""

    kind: str
    copies: int
    dim: int

    @property
    def width(self) -> int:
        """The number of coordinates of a point of one factor."""
        return self.dim if self.kind == "k" else self.dim + 1


@dataclasses.dataclass(frozen=True)
class Product:
    """The signature of a product space, hashable.

    Attributes:
      factors: groups of equal factors, ``(kind, copies, dim)``.

    Raises:
      ValueError: if there are none, a kind is unknown, or a number is not positive.
    """

    factors: tuple[Factors, ...]

    def __init__(self, factors: Sequence[tuple[str, int, int]]):
        groups = tuple(Factors(*group) for group in factors)
        if not groups:
            raise ValueError("factors must name at least one (kind, copies, dim), got none")
        for group in groups:
            if group.kind not in (*_SIGN, "k"):
                raise ValueError(f"factors must be of kind 'h', 'e', 's' or 'k', got {tuple(group)}")
            if group.copies < 1 or group.dim < 1:
                raise ValueError(f"factors must have at least 1 copy and 1 dimension, got {tuple(group)}")
        object.__setattr__(self, "factors", groups)

    @property
    def dim(self) -> int:
        """The dimension of the product."""
        return sum(group.copies * group.dim for group in self.factors)

    @property
    def num_factors(self) -> int:
        """The number of factors."""
        return sum(group.copies for group in self.factors)

    def __str__(self) -> str:
        return " x ".join(f"({g.kind.upper()}{g.dim})^{g.copies}" for g in self.factors)


class Points(flax.struct.PyTreeNode):
    """Points, or tangent vectors, of a product; a pytree.

    Attributes:
      parts: for each group of factors an array ``(..., copies, width)``.
      product: the signature.
    """

    parts: tuple[Any, ...]
    product: Product = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the set of points."""
        return self.parts[0].shape[:-2]

    def __getitem__(self, index: Any) -> "Points":
        index = index if isinstance(index, tuple) else (index,)
        if any(i is Ellipsis for i in index):
            raise ValueError("index must name the leading axes, without an ellipsis")
        return self.replace(parts=tuple(part[index] for part in self.parts))


#: For each group its learnable numbers, ``(copies,)``: log-scales of h and s, curvatures of k, nothing of e.
Curvatures = tuple[dict[str, Float[Array, "..."]], ...]


def init(product: Product, *, kappa: float = 0.0, dtype: Any = jnp.float32) -> Curvatures:
    """Returns the learnable numbers of a product: scales of one, and curvatures ``kappa`` where they are free."""
    first = {"h": ("log_scale", 0.0), "s": ("log_scale", 0.0), "k": ("kappa", kappa)}
    return tuple(
        {first[g.kind][0]: jnp.full(g.copies, first[g.kind][1], dtype)} if g.kind in first else {}
        for g in product.factors
    )


def curvatures(product: Product, params: Curvatures) -> tuple[Array, ...]:
    """Returns the curvature of each factor, by group."""
    return tuple(
        p["kappa"] if g.kind == "k" else _SIGN[g.kind] * (jnp.exp(-2 * p["log_scale"]) if p else jnp.ones(g.copies))
        for g, p in zip(product.factors, params, strict=True)
    )


def spaces(product: Product, params: Curvatures) -> tuple[Space, ...]:
    """Returns the space of each group in its own coordinates, as the optimizers ask for it."""
    return tuple(
        Stereographic(p["kappa"]) if g.kind == "k" else Ambient(jnp.float32(_SIGN[g.kind]))
        for g, p in zip(product.factors, params, strict=True)
    )


def origin(product: Product, shape: tuple[int, ...] = (), dtype: Any = jnp.float32) -> Points:
    """Returns the origin of every factor."""
    parts = [
        jnp.zeros((*shape, g.copies, g.dim), dtype)
        if g.kind == "k"
        else jnp.broadcast_to(ambient.origin(g.dim, _SIGN[g.kind]), (*shape, g.copies, g.width)).astype(dtype)
        for g in product.factors
    ]
    return Points(tuple(parts), product)


def random_points(
    product: Product, params: Curvatures, shape: tuple[int, ...], *, key: Key, scale: Scalar = 1e-2, dtype: Any = None
) -> Points:
    """Returns normal points around the origin: exponentials there of normal vectors of standard deviation ``scale``."""
    dtype = dtype or jnp.float32
    keys = jax.random.split(key, len(product.factors))
    tangents = [
        jnp.asarray(scale) * jax.random.normal(k, (*shape, g.copies, g.dim), dtype)
        for k, g in zip(keys, product.factors, strict=True)
    ]
    return exp0(product, params, tangents)


def exp0(product: Product, params: Curvatures, tangents: Sequence[Float[Array, "..."]]) -> Points:
    """Returns the points reached from the origin with velocities ``(..., copies, dim)`` of unit-scale coordinates."""
    parts = [
        stereographic.project(stereographic.exp0(v, p["kappa"]), p["kappa"])
        if g.kind == "k"
        else ambient.lift(v, _SIGN[g.kind])
        for g, p, v in zip(product.factors, params, tangents, strict=True)
    ]
    return Points(tuple(parts), product)


def log0(product: Product, params: Curvatures, x: Points) -> tuple[Float[Array, "..."], ...]:
    """Returns the inverse of :func:`exp0`."""
    _same(product, x)
    return tuple(
        stereographic.log0(part, p["kappa"]) if g.kind == "k" else ambient.lower(part, _SIGN[g.kind])
        for g, p, part in zip(product.factors, params, x.parts, strict=True)
    )


def project(product: Product, params: Curvatures, x: Points) -> Points:
    """Returns the points put onto the product."""
    return _by_space("project", product, params, x)


def exp(product: Product, params: Curvatures, x: Points, v: Points) -> Points:
    """Returns the exponential map; vectors are in the coordinates of unit scale."""
    return _by_space("exp", product, params, x, v)


def transport(product: Product, params: Curvatures, x: Points, y: Points, v: Points) -> Points:
    """Returns the parallel transport of v from x to y."""
    return _by_space("transport", product, params, x, y, v)


def log(product: Product, params: Curvatures, x: Points, y: Points) -> Points:
    """Returns the inverse of :func:`exp`."""
    _same(product, x, y)
    parts = [
        stereographic.log(a, b, p["kappa"]) if g.kind == "k" else ambient.log(a, b, _SIGN[g.kind])
        for g, p, a, b in zip(product.factors, params, x.parts, y.parts, strict=True)
    ]
    return Points(tuple(parts), product)


def factor_distances(product: Product, params: Curvatures, x: Points, y: Points) -> Float[Array, "*n f"]:
    """Returns the distance in every factor, the groups in the order of the signature."""
    _same(product, x, y)
    each = []
    for g, p, a, b in zip(product.factors, params, x.parts, y.parts, strict=True):
        if g.kind == "k":
            each.append(stereographic.distance(a, b, p["kappa"]))
        else:
            unit = ambient.distance(a, b, _SIGN[g.kind])
            each.append(jnp.exp(p["log_scale"]) * unit if p else unit)
    return jnp.concatenate(each, axis=-1)


def distance(
    product: Product, params: Curvatures, x: Points, y: Points, *, reduction: Reduction = "l2"
) -> Float[Array, "*n"]:
    r"""Returns one distance for each pair: :math:`\sqrt{\sum_f d_f^2}`, or the sum or the least of the :math:`d_f`.

    >>> product = Product((("e", 1, 2), ("s", 1, 2)))
    >>> params, o = init(product), origin(product)
    >>> far = exp0(product, params, [jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 1.0]])])
    >>> [round(float(distance(product, params, o, far, reduction=r)), 4) for r in ("l2", "l1", "min")]
    [3.1623, 4.0, 1.0]

    Args:
      product: the signature.
      params: its curvatures.
      x: points, whose shape broadcasts against that of y.
      y: points.
      reduction: ``"l2"``, the distance of the Riemannian product (Gu et al.); ``"l1"``; or ``"min"``.

    Raises:
      ValueError: if the points are of another product, or the reduction is unknown.
    """
    each = factor_distances(product, params, x, y)
    reduced = reduce(each, reduction)
    if reduced.shape != each.shape[:-1]:
        raise AssertionError(f"one distance a pair was expected, got the shape {reduced.shape}")
    return reduced


def reduce(each: Float[Array, "*n f"], reduction: Reduction) -> Float[Array, "*n"]:
    """Returns one distance of those in the factors.

    Raises:
      ValueError: if the reduction is unknown.
    """
    if reduction == "l2":
        return safe_sqrt(jnp.sum(each**2, axis=-1))
    if reduction == "l1":
        return jnp.sum(each, axis=-1)
    if reduction == "min":
        return jnp.min(each, axis=-1)
    raise ValueError(f"reduction must be 'l2', 'l1' or 'min', got {reduction!r}")


def _by_space(method: str, product: Product, params: Curvatures, *points: Points) -> Points:
    _same(product, *points)
    parts = [
        getattr(space, method)(*arrays)
        for space, *arrays in zip(spaces(product, params), *(p.parts for p in points), strict=True)
    ]
    return Points(tuple(parts), product)


def _same(product: Product, *points: Points) -> None:
    for x in points:
        if x.product != product:
            raise ValueError(f"points must be of {product}, got points of {x.product}")
