r"""Many signatures as one array: every factor a slot of ambient coordinates, its sign data, its absence a zero.

A product of h, e and s factors becomes ``(slots, n, width)``, padded to the slots and the width of the batch. All pairs
of a graph are then a few matrix products, and signatures, graphs and seeds are a leading axis for ``vmap``. Padded
coordinates are zero, and stay so, since their gradient is; padded slots are multiplied by zero.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from zsml_jax.curvature import ambient
from zsml_jax.curvature.curved_trig import safe_sqrt, twice_arcsin, twice_arcsin_rate
from zsml_jax.curvature.manifold import Curvatures, Points, Product, Reduction
from zsml_jax.typing import Array, Key, Scalar

_SIGN = {"h": -1.0, "e": 0.0, "s": 1.0}


class Slots(NamedTuple):
    """What a signature is to the program; stacked for several.

    Attributes:
      sign: the sign of the curvature of each slot, ``(slots,)``.
      used: 1 for a factor and 0 for padding, ``(slots,)``.
      coordinates: 1 for each coordinate of a factor, without the first, and 0 for padding, ``(slots, width - 1)``.
    """

    sign: Float[Array, "*b slots"]
    used: Float[Array, "*b slots"]
    coordinates: Float[Array, "*b slots width"]


class Place(NamedTuple):
    """Where points are: what is trained.

    Attributes:
      x: ambient coordinates, ``(slots, n, width)``.
      log_scale: the logarithm of the length of a unit, ``(slots,)``; that of flat slots stays 0.
    """

    x: Float[Array, "*b slots n width"]
    log_scale: Float[Array, "*b slots"]


def stack(products: Sequence[Product]) -> Slots:
    """Returns the slots of several products, padded to the largest.

    Raises:
      ValueError: if there are none, or one has a factor of kind ``k``.
    """
    if not products:
        raise ValueError("products must name at least one signature, got none")
    each = [[(g.kind, g.dim) for g in product.factors for _ in range(g.copies)] for product in products]
    if free := next((p for p, row in zip(products, each, strict=True) if any(kind == "k" for kind, _ in row)), None):
        raise ValueError(f"products must have factors of kind 'h', 'e' and 's' only to be stacked, got {free}")
    slots, width = max(map(len, each)), max(dim for row in each for _, dim in row)
    sign, used = np.zeros((len(each), slots), np.float32), np.zeros((len(each), slots), np.float32)
    coordinates = np.zeros((len(each), slots, width), np.float32)
    for i, row in enumerate(each):
        for j, (kind, dim) in enumerate(row):
            sign[i, j], used[i, j], coordinates[i, j, :dim] = _SIGN[kind], 1, 1
    return Slots(jnp.asarray(sign), jnp.asarray(used), jnp.asarray(coordinates))


def init(slots: Slots, n: int, *, key: Key, scale: Scalar) -> Place:
    """Returns normal points around the origin of each slot of one signature."""
    normal = jax.random.normal(key, (slots.sign.shape[-1], n, slots.coordinates.shape[-1]), jnp.float32)
    tangents = jnp.asarray(scale) * normal * slots.coordinates[:, None, :]
    return Place(ambient.lift(tangents, slots.sign[:, None]), jnp.zeros_like(slots.sign))


def distances(
    slots: Slots, place: Place, rows: Float[Array, "slots r width"] | None = None, reduction: Reduction = "l2"
) -> Float[Array, "r n"]:
    """Returns the distances of all points to all, or of some rows of points to all, by matrix products.

    Below a thousandth of the unit they are as rough as float32 products are.
    """
    x, scale, same = place.x, jnp.exp(place.log_scale), rows is None
    first = x if rows is None else rows
    if reduction == "l2":
        return safe_sqrt(_squared_lengths(scale**2 * slots.used, first, x, slots.sign, same))
    quarter, _ = _chords(first, x, slots.sign)
    each = scale[:, None, None] * twice_arcsin(quarter, slots.sign[:, None, None])
    if reduction == "l1":
        return jnp.sum(each * slots.used[:, None, None], axis=0)
    if reduction == "min":
        return jnp.min(jnp.where(slots.used[:, None, None] > 0, each, jnp.inf), axis=0)
    raise ValueError(f"reduction must be 'l2', 'l1' or 'min', got {reduction!r}")


def _chords(rows: Array, x: Array, sign: Array) -> tuple[Array, Array]:
    """Returns a quarter of the squared chord of each pair in each slot, and the metric, ``(slots, 1, width)``."""
    metric = jnp.ones((len(sign), 1, x.shape[-1]), x.dtype).at[..., 0].set(sign[:, None])
    products = jnp.einsum("krd,knd->krn", rows, metric * x, precision="highest")
    flat = lambda p: jnp.where(sign[:, None] == 0, jnp.sum(p**2, axis=-1), sign[:, None])
    return jnp.maximum((flat(rows)[:, :, None] + flat(x)[:, None, :] - 2 * products) / 4, 0), metric


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _squared_lengths(weights: Array, rows: Array, x: Array, sign: Array, same: bool) -> Array:
    """Returns the weighted sum over slots of the squared distances of rows to all points, ``(r, n)``.

    It is most of the work of an embedding. By hand its gradient takes half the passes over all pairs of all slots, and
    where the rows are the points themselves, as ``same`` says, one matrix product less.
    """
    return _squared_lengths_forward(weights, rows, x, sign, same)[0]


def _squared_lengths_forward(
    weights: Array, rows: Array, x: Array, sign: Array, same: bool
) -> tuple[Array, tuple[Array, ...]]:
    quarter, metric = _chords(rows, x, sign)
    lengths = twice_arcsin(quarter, sign[:, None, None])
    total = jnp.sum(lengths**2 * weights[:, None, None], axis=0)
    return total, (weights, rows, x, sign, metric, quarter, lengths)


def _squared_lengths_backward(
    same: bool, kept: tuple[Array, ...], cotangent: Array
) -> tuple[Array, Array, Array, Array]:
    weights, rows, x, sign, metric, quarter, lengths = kept
    of_weights = jnp.sum(cotangent * lengths**2, axis=(1, 2))
    steep = twice_arcsin_rate(quarter, sign[:, None, None])
    # The limit at equal points is 4; beyond the antipode there is no gradient.
    rate = jnp.where(steep > 0, 2 * lengths * steep, jnp.where(quarter < 0.5, 4.0, 0.0))
    if same:
        cotangent = cotangent + cotangent.T
    of_quarter = cotangent * weights[:, None, None] * rate / 2
    flat = (sign == 0)[:, None, None]

    def of_points(of_quarter: Array, points: Array, others: Array) -> Array:
        own = jnp.sum(of_quarter, axis=2, keepdims=True) * points
        across = jnp.einsum("krn,knd->krd", of_quarter, others, precision="highest")
        return jnp.where(flat, own, 0) - metric * across

    of_rows = of_points(of_quarter, rows, x)
    of_x = jnp.zeros_like(x) if same else of_points(jnp.swapaxes(of_quarter, 1, 2), x, rows)
    return of_weights, of_rows, of_x, jnp.zeros_like(sign)


_squared_lengths.defvjp(_squared_lengths_forward, _squared_lengths_backward)


def unpack(product: Product, place: Place, n: int) -> tuple[Points, Curvatures]:
    """Returns the first n points of one signature, and its scales, without the padding."""
    parts, params, at = [], [], 0
    for group in product.factors:
        x = place.x[at : at + group.copies, :n, : group.width]
        parts.append(jnp.moveaxis(x, 0, 1))
        params.append({"log_scale": place.log_scale[at : at + group.copies]} if group.kind in "hs" else {})
        at += group.copies
    return Points(tuple(parts), product), tuple(params)
