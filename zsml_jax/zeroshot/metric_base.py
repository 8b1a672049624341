"""What all metric spaces over classes share: keyed ids, a pytree form, and decoding by blocks of classes."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.typing import AnyArray, Array
from zsml_jax.zeroshot.class_ids import ClassIds

_BLOCK_ENTRIES = 2**22  # of a block of distances, or of expected costs


class Metric:
    """A metric space over classes: a pytree whose class ids are static.

    Attributes:
      class_ids: the classes.
    """

    #: The names of the array attributes, which are the pytree's leaves.
    _arrays: ClassVar[tuple[str, ...]] = ()
    #: The names of further static attributes.
    _static: ClassVar[tuple[str, ...]] = ()
    class_ids: ClassIds

    def __init_subclass__(cls) -> None:
        jax.tree_util.register_pytree_node(
            cls,
            lambda metric: (
                tuple(getattr(metric, name) for name in cls._arrays),
                (metric.class_ids, *(getattr(metric, name) for name in cls._static)),
            ),
            cls._unflatten,
        )

    @classmethod
    def _unflatten(cls, static: tuple[Any, ...], arrays: Sequence[Any]) -> "Metric":
        metric = object.__new__(cls)
        names = (*cls._arrays, "class_ids", *cls._static)
        for name, value in zip(names, (*arrays, *static), strict=True):
            setattr(metric, name, value)
        return metric

    @property
    def classes(self) -> tuple[Hashable, ...]:
        """The class ids in their order; a decoded index is a position in this tuple."""
        return self.class_ids.ids

    def distance(self, a: Sequence[Hashable], b: Sequence[Hashable]) -> Float[Array, " m"]:
        """Returns the distances of pairs of class ids, ``(m,)``."""
        return self.distances(self.class_ids.indices(a, "a"), self.class_ids.indices(b, "b"))

    @jax.jit
    def distances(self, a: Int[AnyArray, "*#m"], b: Int[AnyArray, "*#m"]) -> Float[Array, "*m"]:
        """Returns the distances of class indices, broadcast against each other."""
        return self._distances(a, b)

    def _distances(self, a: AnyArray, b: AnyArray) -> Array:
        raise NotImplementedError

    @property
    def diameter(self) -> float:
        """The largest distance of two classes."""
        return float(self._largest_distance())

    @jax.jit
    def _largest_distance(self) -> Array:
        classes = jnp.arange(len(self.class_ids))
        batch = max(1, _BLOCK_ENTRIES // len(self.class_ids))
        return jax.lax.map(lambda i: jnp.max(self.distances(i, classes)), classes, batch_size=batch).max()

    def frechet_mean(
        self, probs: Float[AnyArray, "n m"], observed: Int[AnyArray, " m"], exponent: float
    ) -> Int[Array, " n"]:
        """Returns the class index of least expected cost of each row, the first on ties.

        Args:
          probs: non-negative weights of the observed classes, ``(n, m)``.
          observed: their class indices, ``(m,)``.
          exponent: the power of the distance that a mistake costs.

        Returns:
          Class indices, ``(n,)``.
        """
        return self._argmin_by_blocks(jnp.asarray(probs), jnp.asarray(observed), exponent)

    @functools.partial(jax.jit, static_argnames="exponent")
    def _argmin_by_blocks(self, probs: Array, observed: Array, exponent: float) -> Array:
        def costs(classes: Array) -> Array:
            powers = self.distances(classes[:, None], observed[None, :]) ** exponent
            return jnp.matmul(probs, powers.T.astype(probs.dtype), precision=jax.lax.Precision.HIGHEST)

        width = max(probs.shape[0], observed.shape[0])
        return argmin_by_blocks(costs, probs.shape[0], len(self.class_ids), width)


def argmin_by_blocks(
    costs: Callable[[Int[Array, " b"]], Float[Array, "n b"]], n: int, k: int, width: int
) -> Int[Array, " n"]:
    """Returns the column of the least entry of each row of an ``(n, k)`` matrix that is computed block by block.

    Args:
      costs: columns of the matrix by their indices.
      n: the number of rows.
      k: the number of columns.
      width: how many numbers a column takes to compute.

    Returns:
      The first least column of each row, ``(n,)``.
    """
    size = min(k, max(1, _BLOCK_ENTRIES // width))
    if size == k:
        return jnp.argmin(costs(jnp.arange(k)), axis=1).astype(jnp.int32)

    def body(best: tuple[Array, Array], begin: Array) -> tuple[tuple[Array, Array], None]:
        block = costs(jnp.minimum(begin + jnp.arange(size), k - 1))
        column = jnp.argmin(block, axis=1)
        cost = jnp.take_along_axis(block, column[:, None], axis=1)[:, 0]
        smaller = cost < best[0]
        index = jnp.where(smaller, jnp.minimum(begin + column, k - 1), best[1])
        return (jnp.where(smaller, cost, best[0]), index.astype(jnp.int32)), None

    dtype = jax.eval_shape(costs, jnp.arange(1)).dtype
    start = (jnp.full(n, jnp.inf, dtype), jnp.zeros(n, jnp.int32))
    return jax.lax.scan(body, start, jnp.arange(0, k, size))[0][1]


def is_traced(*arrays: AnyArray) -> bool:
    """Returns whether one of the arrays has no value yet, inside a transformation."""
    return any(isinstance(a, jax.core.Tracer) for a in arrays)


def as_float(array: AnyArray) -> np.ndarray | Array:
    """Returns floats as they are, other numbers as the default float type."""
    return array if jnp.issubdtype(jnp.result_type(array), jnp.floating) else np.asarray(array, np.float64)
