"""Pruning: setting the weights with the smallest scores to zero.

Global magnitude pruning is that of "The Cost of Compression" (Namburi et al., 2023) and of PyTorch's
``global_unstructured`` with ``L1Unstructured``; rows are its ``ln_structured`` along the outputs, with n = 1; N:M
patterns are those of Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021. Wanda is Sun et al., "A Simple
and Effective Pruning Approach for Large Language Models", 2024; SparseGPT is in :mod:`.error_feedback`.
"""

import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from zsml_jax.compression.calibration import Calibration, InputStatistics
from zsml_jax.compression.error_feedback import sparsegpt
from zsml_jax.compression.groups import kernels
from zsml_jax.compression.layerwise import Compress, compress_blocks
from zsml_jax.compression.masks import Pruned, apply_masks, check_fit, keep_masks_of, n_of_m
from zsml_jax.transform.patterns import Patterns
from zsml_jax.typing import Array, Key, Params

Method = Literal["magnitude", "random", "wanda", "sparsegpt"]
#: What scores are compared within where nothing is said.
WITHIN = {"magnitude": "global", "random": "global", "wanda": "output", "sparsegpt": "layer"}


def prune(
    params: Params,
    method: Method,
    sparsity: float,
    *,
    groups: Patterns,
    calibration: Calibration | None = None,
    within: str | None = None,
    key: Key | None = None,
) -> Pruned:
    """Removes a share of the weights of some kernels.

    >>> params = {"up": {"kernel": jnp.array([[1.0, -4.0], [-2.0, 3.0]])}}
    >>> pruned = prune(params, "magnitude", 0.5, groups="up/kernel")
    >>> pruned.params["up"]["kernel"].tolist(), pruned.sparsity
    ([[0.0, -4.0], [0.0, 3.0]], 0.5)

    Args:
      params: the parameters.
      method: ``"magnitude"`` or ``"random"``; with calibration data ``"wanda"``, the magnitude times the norm of the
        weight's inputs, or ``"sparsegpt"``, which adjusts the weights that stay. These take kernels in layers only,
        one block of the model at a time.
      sparsity: the share to remove, at least 0 and less than 1. It is rounded to whole weights, or rows, of what is
        compared; exactly that many are removed, and of equal scores the first.
      groups: the kernels, as paths or patterns of paths, such as ``groups(pretrained)["attention"]``.
      within: what scores are compared within: ``"global"`` for all the kernels together, ``"layer"`` for each layer's
        kernel, ``"output"`` for the inputs of each output, ``"rows"`` for whole outputs of each layer's kernel, by the
        sum of their scores, or a pattern such as ``"2:4"``, which keeps the 2 largest of each 4 consecutive inputs. By
        default globally, but for each output with ``"wanda"``; ``"sparsegpt"`` takes ``"layer"``, its default, or a
        pattern.
      calibration: the data, for the methods that need it.
      key: for a random choice.

    Returns:
      New parameters and the masks.

    Raises:
      ValueError: if an argument is out of range or does not fit another, a path matches no kernel, or a kernel is not
        finite.
    """
    if method not in WITHIN:
        raise ValueError(f"method must be one of {sorted(WITHIN)}, got {method!r}")
    within = WITHIN[method] if within is None else within
    chosen = kernels(params, groups)
    check_fit(chosen, sparsity, within)
    if method in ("magnitude", "random"):
        masks = keep_masks_of(chosen, _scores(chosen, method, key), sparsity, within)
        return Pruned(apply_masks(params, masks), masks)
    if calibration is None:
        raise ValueError(f"calibration must be given for {method!r}")
    compress, gram = layer_method(method, sparsity, within)
    return Pruned(*compress_blocks(params, calibration, list(chosen), compress, gram=gram))


def layer_method(method: str, sparsity: float, within: str) -> tuple[Compress, bool]:
    """Returns what compresses a kernel by its inputs, and whether it needs their Gram matrix.

    Raises:
      ValueError: if ``within`` does not fit the method.
    """
    if within == "global" or (method == "sparsegpt" and within != "layer" and n_of_m(within) is None):
        raise ValueError(f"within must be {_FITTING[method]} with {method!r}, got {within!r}")
    if method == "wanda":
        return functools.partial(_wanda, sparsity=sparsity, within=within), False
    compress = jax.jit(functools.partial(sparsegpt, sparsity=sparsity, pattern=n_of_m(within)))
    return lambda kernel, statistics, _: compress(kernel, statistics.hessian), True


_FITTING = {"wanda": "'layer', 'output', 'rows' or such as '2:4'", "sparsegpt": "'layer' or such as '2:4'"}


def _wanda(
    kernel: Array, statistics: InputStatistics, _: object, *, sparsity: float, within: str
) -> tuple[Array, Array]:
    scores = jnp.abs(jnp.asarray(kernel, jnp.float32)) * jnp.sqrt(statistics.squares)[:, None]
    (mask,) = keep_masks_of({"kernel": kernel}, {"kernel": scores}, sparsity, within).values()
    return jnp.where(mask, kernel, jnp.zeros((), kernel.dtype)), mask


def _scores(chosen: Mapping[str, Any], method: str, key: Key | None) -> dict[str, Array]:
    if method == "magnitude":
        return {path: jnp.abs(jnp.asarray(kernel, jnp.float32)) for path, kernel in chosen.items()}
    if key is None:
        raise ValueError("key must be given to prune at random")
    keys = jax.random.split(key, len(chosen))
    return {path: jax.random.uniform(k, chosen[path].shape) for path, k in zip(chosen, keys, strict=True)}
