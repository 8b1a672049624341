r"""The kappa-stereographic model: one space whose curvature :math:`\kappa` may be negative, zero or positive.

Bachmann, Bécigneul and Ganea, "Constant Curvature Graph Convolutional Networks", ICML 2020, section 2 and appendix A,
with formulas of Ungar's gyrovector spaces. For :math:`\kappa < 0` points lie in the Poincaré ball of radius
:math:`1/\sqrt{-\kappa}`, for :math:`\kappa > 0` on the stereographic projection of a sphere, at 0 in Euclidean space,
where this model's distance is twice the usual one. All functions are smooth in :math:`\kappa` and at equal points,
except the distance itself, which has a corner there; its gradient is then zero.

Points lie along the last axis; ``kappa`` broadcasts against the others.
"""

import jax.numpy as jnp
from jaxtyping import Float

from zsml_jax.curvature.curved_trig import arctan_ratio, safe_sqrt, tan_ratio, twice_arcsin
from zsml_jax.typing import Array, Scalar

#: How near to the boundary of the ball a point may come, as a share of its radius.
_MARGIN = {jnp.dtype("float32"): 4e-3, jnp.dtype("float64"): 1e-5}


def project(x: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns the points, those outside of the ball drawn back into it; where kappa is not negative all stay."""
    kappa = _column(kappa, x)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    radius = 1 - _MARGIN.get(x.dtype, 4e-3)
    outside = -kappa * square > radius**2
    scale = radius * jnp.where(outside, 1 / jnp.sqrt(jnp.where(outside, -kappa * square, 1)), 1)
    return jnp.where(outside, scale * x, x)


def add(x: Float[Array, "*n d"], y: Float[Array, "*#n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    r"""Möbius addition :math:`x \oplus_\kappa y`."""
    kappa = _column(kappa, x, y)
    xy, xx, yy = _dot(x, y), _dot(x, x), _dot(y, y)
    numerator = (1 - 2 * kappa * xy - kappa * yy) * x + (1 + kappa * xx) * y
    return numerator / _away_from_zero(1 - 2 * kappa * xy + kappa**2 * xx * yy)


def scale(r: Scalar, x: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    r"""Möbius scaling :math:`r \otimes_\kappa x`: r times as far from the origin on the same geodesic."""
    kappa, r = _column(kappa, x), _column(r, x)
    square = _dot(x, x)
    length = arctan_ratio(kappa * square)
    return r * length * tan_ratio(kappa * square * (r * length) ** 2) * x


def conformal_factor(x: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n"]:
    r"""Returns :math:`\lambda_x = 2 / (1 + \kappa \|x\|^2)`, the length of a unit vector at x."""
    return (2 / _away_from_zero(1 + _column(kappa, x) * _dot(x, x)))[..., 0]


def exp(x: Float[Array, "*n d"], v: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns the point that the geodesic from x with velocity v reaches in unit time."""
    half = conformal_factor(x, kappa)[..., None] / 2
    column = _column(kappa, x, v)
    return add(x, half * tan_ratio(column * half**2 * _dot(v, v)) * v, kappa)


def log(x: Float[Array, "*n d"], y: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns the velocity at x of the geodesic that reaches y in unit time, the inverse of :func:`exp`."""
    between = add(-x, y, kappa)
    column = _column(kappa, x, y)
    half = conformal_factor(x, kappa)[..., None] / 2
    return arctan_ratio(column * _dot(between, between)) * between / half


def exp0(v: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns :func:`exp` at the origin for a vector in unit-length coordinates there, ``tan_k(|v|) v / |v|``."""
    return tan_ratio(_column(kappa, v) * _dot(v, v)) * v


def log0(x: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns the inverse of :func:`exp0`."""
    return arctan_ratio(_column(kappa, x) * _dot(x, x)) * x


def distance(x: Float[Array, "*#n d"], y: Float[Array, "*#n d"], kappa: Scalar) -> Float[Array, "..."]:
    r"""Returns the length of the geodesic, :math:`2 \tan_\kappa^{-1}\|{-x} \oplus_\kappa y\|`.

    It is computed as :math:`2 \sin_\kappa^{-1} \|x - y\| / \sqrt{(1 + \kappa\|x\|^2)(1 + \kappa\|y\|^2)}`, which keeps
    small distances near the boundary of the ball.
    """
    kappa = jnp.asarray(kappa, jnp.result_type(x, y))
    column = _column(kappa, x, y)
    both = _away_from_zero((1 + column * _dot(x, x)) * (1 + column * _dot(y, y)))
    chord = (_dot(x - y, x - y) / both)[..., 0]
    return _arcsin(chord, kappa)


def distance0(x: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n"]:
    """Returns the distance from the origin."""
    return distance(jnp.zeros_like(x), x, kappa)


def all_distances(x: Float[Array, "n d"], kappa: Scalar) -> Float[Array, "n n"]:
    """Returns the distances of all pairs by one matrix product; small ones are as rough as float32 products are."""
    kappa = jnp.asarray(kappa, x.dtype)
    square = jnp.sum(x**2, axis=-1)
    products = jnp.matmul(x, x.T, precision="highest")
    apart = jnp.maximum(square[:, None] + square[None] - 2 * products, 0) * (1 - jnp.eye(len(x), dtype=x.dtype))
    factor = 1 + kappa * square
    return _arcsin(apart / _away_from_zero(factor[:, None] * factor[None]), kappa)


def gyration(
    x: Float[Array, "*n d"], y: Float[Array, "*n d"], v: Float[Array, "*n d"], kappa: Scalar
) -> Float[Array, "*n d"]:
    """Returns the rotation of v by which Möbius addition fails to be associative, ``gyr[x, y] v``."""
    kappa = _column(kappa, x, y, v)
    xx, yy, xy, xv, yv = _dot(x, x), _dot(y, y), _dot(x, y), _dot(x, v), _dot(y, v)
    a = -(kappa**2) * xv * yy - kappa * yv + 2 * kappa**2 * xy * yv
    b = -(kappa**2) * yv * xx + kappa * xv
    return v + 2 * (a * x + b * y) / _away_from_zero(1 - 2 * kappa * xy + kappa**2 * xx * yy)


def transport(
    x: Float[Array, "*n d"], y: Float[Array, "*n d"], v: Float[Array, "*n d"], kappa: Scalar
) -> Float[Array, "*n d"]:
    """Returns the parallel transport of v from x to y along the geodesic."""
    shrink = conformal_factor(x, kappa) / conformal_factor(y, kappa)
    return gyration(y, -x, v, kappa) * shrink[..., None]


def gyromidpoint(x: Float[Array, "*n m d"], weights: Float[Array, "*#n m"], kappa: Scalar) -> Float[Array, "*n d"]:
    r"""Returns the weighted gyromidpoint of Bachmann et al., the nearer of the two where a sphere has two.

    :math:`m = \frac12 \otimes_\kappa \sum_i \alpha_i \lambda_i x_i / \sum_j \alpha_j (\lambda_j - 1)`. In ambient
    coordinates, whose first is :math:`\lambda - 1`, this is the weighted sum put back onto the space.

    Args:
      x: m points each.
      weights: their weights, not negative, of any positive sum.
      kappa: the curvature, which broadcasts against n.
    """
    factor = conformal_factor(x, jnp.asarray(kappa)[..., None])
    rest = jnp.sum((weights * factor)[..., None] * x, axis=-2)
    first = jnp.sum(weights * (factor - 1), axis=-1)[..., None]
    return midpoint_of_sums(rest, first, kappa)


def midpoint_of_sums(rest: Float[Array, "*n d"], first: Float[Array, "*n 1"], kappa: Scalar) -> Float[Array, "*n d"]:
    r"""Returns the midpoint by the sums :math:`\sum \alpha_i\lambda_i x_i` and :math:`\sum \alpha_i(\lambda_i - 1)`."""
    length = safe_sqrt(first**2 + _column(kappa, rest) * _dot(rest, rest))
    return rest / _away_from_zero(first + length)


def riemannian_gradient(x: Float[Array, "*n d"], gradient: Float[Array, "*n d"], kappa: Scalar) -> Float[Array, "*n d"]:
    """Returns the gradient in the metric at x, the Euclidean one by the squared conformal factor."""
    return gradient / conformal_factor(x, kappa)[..., None] ** 2


def _arcsin(square: Array, kappa: Array) -> Array:
    r"""Returns :math:`2 \arcsin(\sqrt{\kappa s}) / \sqrt\kappa`, smooth in kappa, by the square s."""
    z = kappa * square
    near = jnp.abs(z) < (1e-3 if z.dtype == jnp.float64 else 0.05)
    small = jnp.where(near, z, 0)
    series = 1 + small * (1 / 6 + small * (3 / 40 + small * (5 / 112 + small * (35 / 1152 + small * 63 / 2816))))
    far_kappa = jnp.where(near, 1, jnp.abs(kappa))
    far = twice_arcsin(jnp.where(near, 0.25, jnp.abs(z)), jnp.sign(kappa)) / jnp.sqrt(far_kappa)
    return jnp.where(near, 2 * safe_sqrt(jnp.where(near, square, 1)) * series, far)


def _dot(x: Array, y: Array) -> Array:
    return jnp.sum(x * y, axis=-1, keepdims=True)


def _column(value: Scalar, *points: Array) -> Array:
    return jnp.asarray(value, jnp.result_type(*points))[..., None]


def _away_from_zero(x: Array) -> Array:
    least = 1e-15
    return jnp.where(jnp.abs(x) < least, jnp.where(x < 0, -least, least), x)
