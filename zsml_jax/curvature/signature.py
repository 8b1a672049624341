r"""Signatures: how many hyperbolic, Euclidean and spherical factors share a budget of dimensions, and which to choose.

The grid is that of McNeela, Sala and Gitter (2024): up to three factors of each kind, of :math:`\lfloor 100/k \rfloor`
dimensions each, 63 signatures in all. The estimate of curvature is that of Gu et al. (ICLR 2019), section 3.2.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from zsml_jax.curvature.manifold import Product
from zsml_jax.typing import AnyArray, Array, Key

_KINDS = ("h", "e", "s")


def product_of(h: int, e: int, s: int, *, dim: int = 100) -> Product:
    """Returns the product of h hyperboloids, e Euclidean spaces and s spheres of ``dim // (h + e + s)`` dimensions.

    >>> str(product_of(2, 1, 0, dim=12))
    '(H4)^2 x (E4)^1'

    Raises:
      ValueError: if there is no factor, or a factor would have no dimension.
    """
    counts = dict(zip(_KINDS, (h, e, s), strict=True))
    total = sum(counts.values())
    if min(counts.values()) < 0 or total < 1:
        raise ValueError(f"h, e and s must not be negative nor all zero, got {(h, e, s)}")
    if dim < total:
        raise ValueError(f"dim must be at least the number of factors, {total}, got {dim}")
    return Product([(kind, count, dim // total) for kind, count in counts.items() if count])


def all_signatures(*, most: int = 3, dim: int = 100) -> list[Product]:
    """Returns the products with at most ``most`` factors of each kind; 63 for three.

    >>> len(all_signatures())
    63
    """
    grid = itertools.product(range(most + 1), repeat=3)
    return [product_of(*counts, dim=dim) for counts in grid if any(counts)]


def counts(product: Product) -> tuple[int, int, int]:
    """Returns the numbers of hyperbolic, Euclidean and spherical factors."""
    h, e, s = (sum(g.copies for g in product.factors if g.kind == kind) for kind in _KINDS)
    return h, e, s


def family(product: Product) -> str:
    """Returns the family of a product: ``hyperbolic``, ``Euclidean``, ``spherical`` or ``mixed``."""
    kinds = {g.kind for g in product.factors}
    names = {"h": "hyperbolic", "e": "Euclidean", "s": "spherical"}
    return names.get(next(iter(kinds)), "mixed") if len(kinds) == 1 else "mixed"


def sectional_curvatures(
    distances: Float[AnyArray, "n n"], neighbours: Bool[AnyArray, "n n"], *, key: Key, samples: int = 1000
) -> Float[Array, " samples"]:
    r"""Returns estimates of curvature at sampled triangles of a graph (Gu et al., section 3.2).

    For a node m, two neighbours b and c of it and another node a,
    :math:`\xi = [d(a,m)^2 + d(b,c)^2/4 - (d(a,b)^2 + d(a,c)^2)/2] / 2 d(a,m)`: negative in trees, zero on lines,
    positive in cycles.

    Args:
      distances: of a connected graph.
      neighbours: its edges.
      key: of the sample.
      samples: triangles.

    Raises:
      ValueError: if the graph is not connected, or no node has two neighbours.
    """
    distances, neighbours = jnp.asarray(distances), jnp.asarray(neighbours)
    if not bool(jnp.isfinite(distances).all()):
        raise ValueError("distances must be finite: the graph is not connected, take its largest component")
    middles = np.flatnonzero(np.asarray(neighbours).sum(axis=1) >= 2)
    if not len(middles):
        raise ValueError("neighbours must give some node two neighbours: there is no triangle to look at")

    def one(key: Key) -> Array:
        first, second, third = jax.random.split(key, 3)
        m = jax.random.choice(first, jnp.asarray(middles))
        # The two largest of random numbers at the neighbours are two different ones at random.
        b, c = jax.lax.top_k(jnp.where(neighbours[m], jax.random.uniform(second, (len(distances),)), -1), 2)[1]
        a = jax.lax.top_k(jax.random.uniform(third, (len(distances),)).at[m].set(-1), 1)[1][0]
        to = lambda i, j: distances[i, j] ** 2
        return (to(a, m) + to(b, c) / 4 - (to(a, b) + to(a, c)) / 2) / (2 * distances[a, m])

    return jax.vmap(one)(jax.random.split(key, samples))


def suggest(
    distances: Float[AnyArray, "n n"],
    neighbours: Bool[AnyArray, "n n"],
    *,
    key: Key,
    factors: int = 3,
    dim: int = 100,
    samples: int = 1000,
) -> Product:
    """Returns a signature by the estimates of curvature: factors in proportion to negative, zero and positive ones.

    Gu et al. fit curvatures to the estimates; this is the simplest rule of that kind, and it trains nothing.

    Raises:
      ValueError: as :func:`sectional_curvatures`.
    """
    estimates = np.asarray(sectional_curvatures(distances, neighbours, key=key, samples=samples))
    shares = np.array([(estimates < 0).mean(), (estimates == 0).mean(), (estimates > 0).mean()])
    given = np.floor(shares * factors).astype(int)
    rest = np.argsort(-(shares * factors - given), kind="stable")[: factors - given.sum()]
    given[rest] += 1
    return product_of(*given.tolist(), dim=dim)
