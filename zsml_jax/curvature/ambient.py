r"""Spaces of curvature -1, 0 and 1 in ambient coordinates: the hyperboloid, Euclidean space and the sphere as one.

The sign :math:`\sigma` of the curvature is data, so that one program holds factors of all kinds. A point is
:math:`(x_0, x_1 \ldots x_d)` with :math:`\sigma x_0^2 + \sum_i x_i^2 = \sigma`; Euclidean points have :math:`x_0 = 0`.
The inner product is :math:`\langle x, y \rangle = \sigma x_0 y_0 + \sum_i x_i y_i`. In these coordinates no point of
the sphere is at infinity, as one of the stereographic sphere is, and float32 reaches farther than in the Poincaré ball.

Points lie along the last axis; ``sign`` broadcasts against the others.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from zsml_jax.curvature import curved_trig
from zsml_jax.typing import Array, Scalar


def origin(dim: int, sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the origin, ``(|sign|, 0 ... 0)``."""
    sign = jnp.asarray(sign, float)
    return jnp.concatenate([jnp.abs(sign)[..., None], jnp.zeros((*sign.shape, dim))], axis=-1)


def inner(x: Float[Array, "*#n d"], y: Float[Array, "*#n d"], sign: Scalar) -> Float[Array, "..."]:
    """Returns the inner product of points or vectors."""
    return jnp.asarray(sign, x.dtype) * x[..., 0] * y[..., 0] + jnp.sum(x[..., 1:] * y[..., 1:], axis=-1)


def project(x: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the points of the space: on the sphere scaled to unit length, on the hyperboloid of the same rest.

    On the hyperboloid none is farther from the origin than :func:`farthest`.
    """
    sign = jnp.asarray(sign, x.dtype)
    rest = jnp.sum(x[..., 1:] ** 2, axis=-1)
    most = _largest_rest(x.dtype)
    inside = jnp.where((sign < 0) & (rest > most**2), most / jnp.sqrt(jnp.maximum(rest, most**2)), 1)
    rest = rest * inside**2
    # At the centre of the sphere any direction is as near; the origin is taken.
    length = curved_trig.safe_sqrt(x[..., 0] ** 2 + rest)
    lost = (sign > 0) & (length == 0)
    scale = jnp.where(sign > 0, 1 / jnp.where(length > 0, length, 1), inside)
    first = jnp.where(sign < 0, jnp.sqrt(1 + rest), jnp.where(sign > 0, scale * x[..., 0] + lost, 0))
    return jnp.concatenate([first[..., None], scale[..., None] * x[..., 1:]], axis=-1)


def farthest(dtype: DTypeLike) -> float:
    """Returns the largest distance from the origin of the hyperboloid that points are kept at: 7.3 in float32.

    Products of points lose ``eps cosh(r)^2`` to rounding, about a tenth there; a step from farther out could go
    anywhere. The Poincaré ball of geoopt ends at 6.2 in float32.
    """
    return float(np.arcsinh(_largest_rest(dtype)))


def _largest_rest(dtype: DTypeLike) -> float:
    return float(jnp.finfo(dtype).eps ** -0.5 / 4)


def tangent(x: Float[Array, "*n d"], v: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the part of v that is tangent at x."""
    sign = jnp.asarray(sign, x.dtype)
    flat = jnp.concatenate([jnp.where(sign == 0, 0, v[..., 0])[..., None], v[..., 1:]], axis=-1)
    return flat - (sign * inner(x, flat, sign))[..., None] * x


def exp(x: Float[Array, "*n d"], v: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the point that the geodesic from x with velocity v reaches in unit time, put onto the space again."""
    sign = jnp.asarray(sign, x.dtype)
    z = sign * squared_length(x, v, sign)
    return project(curved_trig.cos(z)[..., None] * x + curved_trig.sin_ratio(z)[..., None] * v, sign)


def squared_length(x: Float[Array, "*n d"], v: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "..."]:
    r"""Returns the squared length of vectors that are tangent at x.

    Far from the origin of the hyperboloid :math:`|v_r|^2 - v_0^2` loses nearly all digits. What v has across the rest
    :math:`x_r` of the point and along it adds up without a difference,
    :math:`|v_\perp|^2 + (x_r \cdot v_r)^2 / (|x_r|^2 x_0^2)`.
    """
    sign = jnp.asarray(sign, x.dtype)
    rest = jnp.sum(x[..., 1:] ** 2, axis=-1)
    dot = jnp.sum(x[..., 1:] * v[..., 1:], axis=-1)
    share = dot / jnp.where(rest > 0, rest, 1)
    across = jnp.sum((v[..., 1:] - share[..., None] * x[..., 1:]) ** 2, axis=-1)
    return jnp.where(sign < 0, across + share * dot / (1 + rest), jnp.maximum(inner(v, v, sign), 0))


def log(x: Float[Array, "*n d"], y: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the velocity at x of the geodesic that reaches y in unit time; at antipodes it is zero."""
    sign = jnp.asarray(sign, x.dtype)
    toward = tangent(x, y - x, sign)
    length = distance(x, y, sign)
    # Towards the antipode the sine of a rounded length is a poor length of `toward`, which is then measured.
    far = (sign > 0) & (length > jnp.pi / 2)
    measured = curved_trig.safe_sqrt(inner(toward, toward, sign)) / jnp.where(far, length, 1)
    ratio = jnp.where(far, measured, curved_trig.sin_ratio(sign * length**2))
    beyond = jnp.abs(ratio) < jnp.finfo(x.dtype).eps
    return jnp.where(beyond, 0, 1 / jnp.where(beyond, 1, ratio))[..., None] * toward


def distance(x: Float[Array, "*#n d"], y: Float[Array, "*#n d"], sign: Scalar) -> Float[Array, "..."]:
    """Returns the length of the geodesic, by the chord, which keeps small distances in float32."""
    sign = jnp.asarray(sign, x.dtype)
    return curved_trig.twice_arcsin(inner(x - y, x - y, sign) / 4, sign)


def transport(
    x: Float[Array, "*n d"], y: Float[Array, "*n d"], v: Float[Array, "*n d"], sign: Scalar
) -> Float[Array, "*n d"]:
    """Returns the parallel transport of v from x to y along the geodesic."""
    sign = jnp.asarray(sign, x.dtype)
    below = 1 + sign * inner(x, y, sign)
    # One plus the hyperbolic cosine of a length, whatever rounding says.
    below = jnp.where(sign < 0, jnp.maximum(below, 2), below)
    share = sign * inner(y, v, sign) / jnp.where(jnp.abs(below) < 1e-12, 1, below)
    return v - share[..., None] * (x + y)


def riemannian_gradient(x: Float[Array, "*n d"], gradient: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the gradient in the metric of the space, tangent at x."""
    sign = jnp.asarray(sign, x.dtype)
    flipped = jnp.concatenate([(sign * gradient[..., 0])[..., None], gradient[..., 1:]], axis=-1)
    return tangent(x, flipped, sign)


def lift(u: Float[Array, "*n m"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the exponential at the origin of ``(0, u)``: how to make points of plain vectors."""
    sign = jnp.asarray(sign, u.dtype)
    z = sign * jnp.sum(u**2, axis=-1)
    first = jnp.where(sign == 0, 0, curved_trig.cos(z))
    return jnp.concatenate([first[..., None], curved_trig.sin_ratio(z)[..., None] * u], axis=-1)


def lower(x: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n m"]:
    """Returns the inverse of :func:`lift`: the logarithm at the origin without its first coordinate."""
    base = jnp.broadcast_to(origin(x.shape[-1] - 1, sign).astype(x.dtype), x.shape)
    return log(base, x, sign)[..., 1:]


def to_stereographic(x: Float[Array, "*n d"], sign: Scalar) -> Float[Array, "*n m"]:
    r"""Returns the stereographic projection from the antipode of the origin, :math:`x_i / (1 + x_0)`.

    Euclidean points come back halved: the stereographic model at curvature 0 measures twice the usual distance.
    """
    first = jnp.where(jnp.asarray(sign) == 0, 1, x[..., 0])
    return x[..., 1:] / (1 + first)[..., None]


def from_stereographic(u: Float[Array, "*n m"], sign: Scalar) -> Float[Array, "*n d"]:
    """Returns the inverse of :func:`to_stereographic`."""
    sign = jnp.asarray(sign, u.dtype)
    square = sign * jnp.sum(u**2, axis=-1)
    first = jnp.where(sign == 0, 0, (1 - square) / (1 + square))
    return jnp.concatenate([first[..., None], 2 * u / (1 + square)[..., None]], axis=-1)
