r"""Trigonometry that passes through zero curvature: functions of :math:`z = \kappa r^2` that are smooth at 0.

For :math:`z > 0` they are those of the sphere, for :math:`z < 0` those of the hyperbolic plane, and at 0 the Taylor
series that both share joins them, so that a learnable curvature crosses zero with finite, correct gradients. Written in
the square of the length, none of them needs a norm, whose gradient would be undefined at equal points.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from zsml_jax.typing import Array

#: Of arcsin(sqrt(q)) / sqrt(q) for q from 0 to a half, to 1e-9.
_ARCSIN_ROOT = tuple(
    float(coefficient)
    for coefficient in Chebyshev.interpolate(lambda q: np.arcsin(np.sqrt(q)) / np.sqrt(q), 9, domain=(0.0, 0.5))
    .convert(kind=Polynomial)
    .coef
)
_TAN = (1.0, 1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925)
_ARCTAN = (1.0, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11)
_SIN = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800)
_COS = (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320, -1 / 3628800)


def tan_ratio(z: Array) -> Array:
    r"""Returns :math:`\tan\sqrt z / \sqrt z`, or :math:`\tanh\sqrt{-z} / \sqrt{-z}` for negative z.

    >>> [round(float(value), 4) for value in tan_ratio(jnp.array([-1.0, 0.0, 1.0]))]
    [0.7616, 1.0, 1.5574]
    """
    return _joined(z, _TAN, lambda r: jnp.tan(r) / r, lambda r: jnp.tanh(r) / r)


def arctan_ratio(z: Array) -> Array:
    r"""Returns :math:`\arctan\sqrt z / \sqrt z`, or that of artanh for z between -1 and 0."""
    most = 1 - 4 * jnp.finfo(z.dtype).eps
    return _joined(z, _ARCTAN, lambda r: jnp.arctan(r) / r, lambda r: jnp.arctanh(jnp.minimum(r, most)) / r)


def sin_ratio(z: Array) -> Array:
    r"""Returns :math:`\sin\sqrt z / \sqrt z`, or :math:`\sinh\sqrt{-z} / \sqrt{-z}`."""
    return _joined(z, _SIN, lambda r: jnp.sin(r) / r, lambda r: jnp.sinh(r) / r)


def cos(z: Array) -> Array:
    r"""Returns :math:`\cos\sqrt z`, or :math:`\cosh\sqrt{-z}`."""
    return _joined(z, _COS, jnp.cos, jnp.cosh)


@jax.custom_jvp
def twice_arcsin(q: Array, sign: Array) -> Array:
    r"""Returns the length of a geodesic of unit curvature by the square q of half of its chord.

    That is :math:`2\arcsin\sqrt q` for sign 1, :math:`2\sqrt q` for 0 and :math:`2\,\mathrm{arsinh}\sqrt q` for -1.
    The gradient at q = 0, where there is none, and that beyond the antipode at q = 1 are zero.

    Args:
      q: a quarter of the squared chord, not negative, and at most 1 where the sign is 1.
      sign: the sign of the curvature, -1, 0 or 1; it has no gradient.

    >>> [round(float(length), 4) for length in twice_arcsin(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.0]))]
    [3.1416, 2.0]
    """
    q = jnp.maximum(q, 0)
    root = jnp.sqrt(q)
    # log1p keeps the small distances that log would round away.
    bent = jnp.log1p(root + q / (1 + jnp.sqrt(1 + q)))
    return 2 * jnp.where(sign > 0, _arcsin_root(q), jnp.where(sign < 0, bent, root))


@twice_arcsin.defjvp
def _twice_arcsin_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    return twice_arcsin(*primals), twice_arcsin_rate(*primals) * tangents[0]


def twice_arcsin_rate(q: Array, sign: Array) -> Array:
    """Returns the derivative of :func:`twice_arcsin` by q, zero where there is none."""
    slope = q * (1 - sign * q)
    # Below this, q is rounding error of the products that it comes from.
    inside = slope > jnp.finfo(q.dtype).tiny
    return jnp.where(inside, jax.lax.rsqrt(jnp.where(inside, slope, 1)), 0)


def _arcsin_root(q: Array) -> Array:
    r"""Returns :math:`\arcsin\sqrt q` for q from 0; beyond 1 it is that of 1.

    In float32 by a polynomial, which a CPU vectorises and its arctangent it does not: ten times faster there.
    """
    if q.dtype == jnp.float64:
        return jnp.arctan2(jnp.sqrt(q), jnp.sqrt(jnp.maximum(1 - q, 0)))
    # Beyond a half it is measured from the other end, where the function is as flat.
    near = jnp.clip(jnp.minimum(q, 1 - q), 0)
    total = jnp.sqrt(near) * _polynomial(_ARCSIN_ROOT, near)
    return jnp.where(q > 0.5, jnp.pi / 2 - total, total)


def safe_sqrt(x: Array) -> Array:
    """Returns the root, with the gradient zero where x is zero or less; of NaN it is NaN."""
    positive = ~(x <= 0)
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _polynomial(coefficients: Sequence[float], x: Array) -> Array:
    """The polynomial of the coefficients, the constant first, by Horner's rule."""
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def _joined(
    z: Array, series: Sequence[float], positive: Callable[[Array], Array], negative: Callable[[Array], Array]
) -> Array:
    """The series near zero, where the six terms are exact to the dtype, and the functions of the root elsewhere."""
    near = jnp.abs(z) < (1e-3 if z.dtype == jnp.float64 else 0.05)
    above, below = ~near & (z > 0), ~near & (z < 0)
    total = _polynomial(series, jnp.where(near, z, 0))
    # What a branch must not see becomes 1, so that it cannot make a NaN in the gradient.
    total = jnp.where(above, positive(jnp.sqrt(jnp.where(above, z, 1))), total)
    return jnp.where(below, negative(jnp.sqrt(jnp.where(below, -z, 1))), total)
