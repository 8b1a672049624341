"""Masks: which weights stay, by their scores and by what these are compared within."""

import functools
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax import transform
from zsml_jax.compression.selection import order_bits, smallest, smallest_of_each
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import AnyArray, Array, Params, PyTree

#: What scores are compared within: all kernels, each layer's kernel, the inputs of each output, or whole outputs of a
#: layer's kernel by the sum of their scores; or "n:m", which keeps the n largest of each m consecutive inputs.
SCOPES = ("global", "layer", "output", "rows")
_N_OF_M = re.compile(r"(\d+):(\d+)")


@flax.struct.dataclass
class Pruned:
    """What pruning returns; a pytree.

    Attributes:
      params: the parameters, with zeros where weights were removed.
      masks: by path of a pruned kernel, True where a weight was kept, whatever its value.
    """

    params: PyTree
    masks: PyTree

    @property
    def sparsity(self) -> float:
        """The share of the weights of the pruned kernels that were removed."""
        kept = sum(int(np.count_nonzero(np.asarray(mask))) for mask in self.masks.values())
        return 1 - kept / sum(mask.size for mask in self.masks.values())


def apply_masks(params: Params, masks: Mapping[str, AnyArray]) -> dict[str, Any]:
    """Returns the parameters with zeros wherever a mask is False.

    A merged adapter brings removed weights back; this takes them out again.

    >>> apply_masks({"up": {"kernel": jnp.array([[1.0, 2.0]])}}, {"up/kernel": jnp.array([[True, False]])})
    {'up': {'kernel': Array([[1., 0.]], dtype=float32)}}

    Args:
      params: the parameters.
      masks: by path, True where a weight is kept.

    Raises:
      ValueError: if a path is unknown or a mask has another shape than its kernel.
    """

    def masked(kernel: Any, path: str) -> Array:
        if masks[path].shape != kernel.shape:
            raise ValueError(f"masks must fit their kernels; at {path} {masks[path].shape} is not {kernel.shape}")
        return jnp.where(masks[path], kernel, jnp.zeros((), kernel.dtype))

    return transform.update(params, list(masks), masked) if masks else dict(params)


def masks_of_zeros(params: Params, groups: Patterns) -> dict[str, Array]:
    """Returns the masks of a model that was pruned and saved, by its zeros.

    >>> masks_of_zeros({"up": {"kernel": jnp.array([[0.0, 2.0]])}}, "up/kernel")
    {'up/kernel': Array([[False,  True]], dtype=bool)}

    Args:
      params: the parameters.
      groups: the kernels, as paths or patterns of paths.
    """
    return {path: jnp.asarray(kernel) != 0 for path, kernel in transform.select(params, groups).items()}


def keep_masks_of(
    chosen: Mapping[str, Any], scores: Mapping[str, Array], sparsity: float, within: str
) -> dict[str, Array]:
    """Returns by path which weights stay: all but the share of the smallest scores, rounded to whole weights.

    Raises:
      ValueError: if ``sparsity`` or ``within`` is out of range, or does not fit the kernels.
    """
    check_fit(chosen, sparsity, within)
    if pattern := n_of_m(within):
        n, m = pattern
        return {path: _keep_n_of_m(score, m - n, m) for path, score in scores.items()}
    if within == "global":
        total = sum(math.prod(kernel.shape) for kernel in chosen.values())
        removed = _smallest(list(scores.values()), round(sparsity * total), axes=None)
        return {path: ~mask for path, mask in zip(scores, removed, strict=True)}
    return {path: _keep_within(score, sparsity, within) for path, score in scores.items()}


def check_fit(chosen: Mapping[str, Any], sparsity: float, within: str) -> None:
    """Raises a ValueError unless a sparsity and a scope are possible for all kernels."""
    check_sparsity(sparsity)
    pattern = n_of_m(within)
    if pattern is None:
        if within not in SCOPES:
            raise ValueError(f"within must be one of {SCOPES} or such as '2:4', got {within!r}")
        return
    n, m = pattern
    if not 0 < n <= m or not math.isclose(sparsity, 1 - n / m):
        raise ValueError(f"within {n}:{m} must have the sparsity 1 - {n}/{m}, got {sparsity}")
    if unfit := [path for path, kernel in chosen.items() if kernel.shape[-2] % m]:
        raise ValueError(f"within {n}:{m} needs inputs that are multiples of {m}; those of {unfit[0]} are not")


def check_sparsity(sparsity: float) -> None:
    """Raises a ValueError unless the sparsity is at least 0 and less than 1."""
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must be at least 0 and less than 1, got {sparsity}")


def n_of_m(within: str) -> tuple[int, int] | None:
    """Returns n and m of a pattern "n:m", None for another scope."""
    found = _N_OF_M.fullmatch(within)
    return None if found is None else (int(found[1]), int(found[2]))


def _keep_within(score: Array, sparsity: float, within: str) -> Array:
    inputs, outputs = score.shape[-2:]
    if within == "rows":
        (removed,) = _smallest([score.sum(axis=-2, keepdims=True)], round(sparsity * outputs), axes=-1)
        return jnp.broadcast_to(~removed, score.shape)
    axes, size = ((-2, -1), inputs * outputs) if within == "layer" else (-2, inputs)
    (removed,) = _smallest([score], round(sparsity * size), axes=axes)
    return ~removed


@functools.partial(jax.jit, static_argnames="axes")
def _smallest(scores: list[Array], count: int | AnyArray, axes: int | tuple[int, ...] | None) -> list[Array]:
    return smallest([order_bits(score) for score in scores], count, axes=axes)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _keep_n_of_m(score: Array, dropped: int, m: int) -> Array:
    return ~smallest_of_each(score, dropped, m)
