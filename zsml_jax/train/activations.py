"""Activations that stay divided as the batch is, whatever the parameters' partitions suggest.

XLA chooses how activations lie. Where one mesh axis divides both the examples and the rows of a matrix, as in fully
sharded data parallelism, it may choose to divide the width of the activations and to give every device the whole batch.
So models call :func:`keep_divided` between their layers, and :func:`zsml_jax.train.fit` says over which axes::

    with divided(mesh, "data"):
        state, metrics = step(state, shard_batch(batch, mesh))

Outside of such a block models are as they were. A jitted function is traced again in another block.
"""

import contextlib
import math
from collections.abc import Generator

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zsml_jax.typing import Array

#: The mesh and its axes that divide the examples, or None; a part of the key of JAX's caches.
_BATCH = jax.make_user_context(default_value=None)


@contextlib.contextmanager
def divided(mesh: Mesh, axes: str | tuple[str, ...] = "data") -> Generator[None, None, None]:
    """Makes functions that are traced in its body keep their examples divided.

    Args:
      mesh: the mesh.
      axes: the mesh axis, or axes, that divide the examples, as for :func:`zsml_jax.train.sharding.shard_batch`.

    Raises:
      ValueError: if the axes are not the mesh's.
    """
    names = (axes,) if isinstance(axes, str) else tuple(axes)
    if unknown := set(names) - set(mesh.axis_names):
        raise ValueError(f"axes must be among the mesh's {mesh.axis_names}, got {sorted(unknown)}")
    with _BATCH((mesh, names)):
        yield


def keep_divided(x: Array) -> Array:
    """Returns activations whose first axis, of examples, is divided as the batch is, and no other axis is.

    Outside of a block, inside of ``shard_map``, or where the examples cannot be divided evenly, they are returned as
    they are.
    """
    if _BATCH.value is None or jax.sharding.get_abstract_mesh().manual_axes:
        return x
    mesh, names = _BATCH.value
    if x.shape[0] % math.prod(mesh.shape[name] for name in names):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(names)))
