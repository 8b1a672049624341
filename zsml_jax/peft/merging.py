"""Merging: the plain parameters of a model that computes what the adapted one does."""

from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.quantized import Quantized
from zsml_jax.peft.adapter import AdaptedLayer, Adapter, check_fits, flatten
from zsml_jax.typing import AnyArray, Params, PyTree


def merge(pretrained: Pretrained, adapter: Adapter) -> Params:
    """Returns new parameters, with which the model without adapter computes what it did with it.

    They are computed in float32 from the base, and rounded once, to the base's dtype. The base stays as it is, so that
    merging again after more training starts from it and not from a rounded sum. To use the merged model, put them in:
    ``pretrained.replace(params=peft.merge(pretrained, adapter))``.

    Args:
      pretrained: the model that was adapted.
      adapter: one adapter; of a stack take one with :func:`~zsml_jax.peft.pick`.

    Returns:
      Parameters of the same structure, shapes and dtypes; those that the adapter does not touch are the same arrays.

    Raises:
      ValueError: if the adapter does not fit the model, a number of either or of what comes out is not finite, or a
        kernel is quantised.
    """
    return merge_params(pretrained.params, adapter)


def merge_params(params: Params, adapter: Adapter) -> Params:
    """Returns what :func:`merge` does, of the parameters of any Linen model.

    Args:
      params: the parameters that were adapted.
      adapter: as for :func:`merge`.

    Raises:
      ValueError: as for :func:`merge`.
    """
    check_fits(adapter, params)
    base = flatten(params)
    known = {**base, **adapter.weights}
    changed: dict[str, Any] = {path: jnp.asarray(value, base[path].dtype) for path, value in adapter.weights.items()}
    for layer in adapter.layers:
        path, bias_path = f"{layer.path}/kernel", f"{layer.path}/bias"
        kernel, bias = known[path], known.get(bias_path)
        if isinstance(kernel, Quantized) or not jnp.issubdtype(kernel.dtype, jnp.floating):
            found = kernel.format if isinstance(kernel, Quantized) else kernel.dtype
            raise ValueError(
                f"params must have a floating-point kernel at {layer.path!r} to merge into, got {found}, whose steps "
                f"are larger than what an adapter adds; merge into models.quantized.dequantize(params)"
            )
        merged_kernel, merged_bias = _merged(adapter, layer, kernel, bias)
        changed[path] = merged_kernel.astype(base[path].dtype)
        if bias is not None and merged_bias is not None:
            changed[bias_path] = merged_bias.astype(base[bias_path].dtype)
    _require_finite(
        {
            "adapter": (adapter.arrays, adapter.weights, adapter.numbers, adapter.shared),
            "params": {path: base[path] for path in changed},
            "the merged parameters": changed,
        }
    )
    return flax.traverse_util.unflatten_dict({**base, **changed}, sep="/")


def unmerge(pretrained: Pretrained) -> Params:
    """Returns the parameters of the base, bit for bit.

    Nothing is subtracted, which would leave what rounding did: merging makes new parameters and never changes the base,
    so its own are still there.
    """
    return pretrained.params


def _merged(adapter: Adapter, layer: AdaptedLayer, kernel: AnyArray, bias: AnyArray | None) -> tuple[Any, Any]:
    exact = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)
    shared = exact({**adapter.shared, **adapter.numbers})

    def of_one(kernel: Any, bias: Any, arrays: PyTree) -> tuple[Any, Any]:
        return layer.method.merged(kernel, bias, arrays, shared)

    of_all: Callable[..., tuple[Any, Any]] = of_one
    for _ in layer.leading:
        of_all = jax.vmap(of_all)
    whole = exact((kernel, bias))
    rows = ... if layer.rows is None else np.asarray(layer.rows)
    part = jax.tree.map(lambda leaf: leaf[rows], whole)
    with jax.default_matmul_precision("highest"):
        merged = of_all(*part, exact(adapter.arrays[layer.path]))
    return jax.tree.map(lambda old, new: old.at[rows].set(new), whole, merged)


def _require_finite(trees: dict[str, PyTree]) -> None:
    for name, tree in trees.items():
        found = {
            jax.tree_util.keystr(path, simple=True, separator="/"): jnp.all(jnp.isfinite(leaf))
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        if any(isinstance(value, jax.core.Tracer) for value in found.values()):
            continue
        if bad := [path for path, is_finite in jax.device_get(found).items() if not is_finite]:
            raise ValueError(f"{name} must be finite to be merged, got infinite or NaN numbers at {bad}")
