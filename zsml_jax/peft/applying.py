"""Running a model with its adapter beside it, the base never touched."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from zsml_jax.models.generate import CachedApply
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.peft.adapter import AdaptedLayer, Adapter, check_fits, with_weights
from zsml_jax.transform.interception import Dense, intercept
from zsml_jax.transform.sites import ApplyFn
from zsml_jax.typing import AnyArray, Array, Key, Params, PyTree

#: ``(adapter, params, *args, rows=None, key=None, **kwargs) -> output``.
AdaptedFn = Callable[..., Any]


def apply(
    pretrained: Pretrained,
    adapter: Adapter,
    tokens: Int[AnyArray, "b t"],
    attention_mask: Int[AnyArray, "b t"] | Bool[AnyArray, "b t"] | Float[AnyArray, "b t"] | None = None,
    token_types: Int[AnyArray, "b t"] | None = None,
    *,
    decoder_tokens: Int[AnyArray, "b u"] | None = None,
    rows: Int[AnyArray, " b"] | None = None,
    key: Key | None = None,
) -> Float[Array, "b _ _"]:
    """Returns what :meth:`Pretrained.apply` does, with the adapter; ``jax.jit(peft.apply)`` compiles it.

    Args:
      pretrained: the model that was adapted.
      adapter: the adapter; with ``rows`` a stack of several.
      tokens: token ids.
      attention_mask: as for :meth:`Pretrained.apply`.
      token_types: as for :meth:`Pretrained.apply`.
      decoder_tokens: as for :meth:`Pretrained.apply`.
      rows: for each row of the batch the number of its adapter in the stack. Other numbers do not recompile. A number
        outside the stack means the nearest in it.
      key: switches dropout on, for training; without it the result is deterministic. A layer that a model calls several
        times, as ALBERT does, drops the same numbers each time.

    Raises:
      ValueError: as for :meth:`Pretrained.apply`, and if the adapter does not fit the model.
    """
    return apply_fn(pretrained.apply)(
        adapter,
        pretrained.params,
        tokens,
        attention_mask,
        token_types,
        decoder_tokens=decoder_tokens,
        rows=rows,
        key=key,
    )


def apply_fn(base: ApplyFn) -> AdaptedFn:
    """Returns the adapted form of an apply function, a pure function of adapter and parameters.

    Make it once, and jit what uses it: adapters then are arguments, and new values never recompile. With respect to
    the adapter, ``jax.grad`` reaches what is trained; its numbers and shared arrays have zero gradients.

    Args:
      base: ``(params, *args, **kwargs) -> output``, such as ``pretrained.apply`` or ``pretrained.hidden_states``; see
        :func:`zsml_jax.transform.sites`.

    Returns:
      A function ``(adapter, params, *args, rows=None, key=None, **kwargs)``; ``rows`` and ``key`` are those of
      :func:`apply`. It raises a ValueError if the adapter does not fit the parameters.
    """

    def adapted(
        adapter: Adapter,
        params: Params,
        *args: Any,
        rows: AnyArray | None = None,
        key: Key | None = None,
        **kwargs: Any,
    ) -> Any:
        if rows is not None and (adapter.weights or not adapter.layers):
            raise ValueError(
                "rows must be None for adapters that train parameters in full, or adapt no layer: such models cannot "
                "share a batch; run one after another"
            )
        check_fits(adapter, params, stacked=rows is not None)
        params = with_weights(params, adapter.weights)
        if not adapter.layers:
            return base(params, *args, **kwargs)
        rule = functools.partial(_adapted_layer, adapter, None if rows is None else jnp.asarray(rows))
        run = intercept(
            base,
            {layer.path: rule for layer in adapter.layers},
            per_site={
                layer.path: _of_layer(adapter, layer, None if key is None else jax.random.fold_in(key, i), rows)
                for i, layer in enumerate(adapter.layers)
            },
        )
        return run(params, *args, **kwargs)

    return adapted


def generate_fn(pretrained: Pretrained) -> CachedApply:
    """Returns the adapted model for :func:`zsml_jax.models.generate.generate`; make it once, so that it compiles once.

    Its parameters are ``{"adapter": adapter, "base": pretrained.params}``, and perhaps ``"rows"`` as for :func:`apply`,
    so that one batch of prompts is continued by several adapters::

        write = peft.generate_fn(pretrained)
        generate(pretrained, tokens, params={"adapter": adapter, "base": pretrained.params}, apply_fn=write, ...)

    Args:
      pretrained: a causal language model.
    """
    run = apply_fn(lambda params, *args, **kwargs: pretrained.module.apply({"params": params}, *args, **kwargs))

    def write(params: PyTree, *args: Any, **kwargs: Any) -> Any:
        return run(params["adapter"], params["base"], *args, rows=params.get("rows"), **kwargs)

    return write


def _of_layer(adapter: Adapter, layer: AdaptedLayer, key: Key | None, rows: AnyArray | None) -> PyTree:
    """What reaches a layer, with the leading axis of its stack; that of several adapters follows behind."""
    arrays = jax.tree.map(jnp.asarray, adapter.arrays[layer.path])
    if rows is not None and layer.leading:
        arrays = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, len(layer.leading)), arrays)
    own: dict[str, Any] = {"arrays": arrays}
    if layer.rows is not None:
        # Layers that are not adapted get some other layer's arrays, and their results are not used.
        (count,) = layer.stack
        place = np.searchsorted(np.asarray(layer.rows), np.arange(count)).clip(max=len(layer.rows) - 1)
        own["arrays"] = jax.tree.map(lambda leaf: leaf[place], arrays)
        own["is_adapted"] = np.isin(np.arange(count), layer.rows)
    if key is not None and "dropout" in adapter.numbers:
        own["key"] = jax.random.split(key, layer.stack) if layer.stack else key
    return own


def _adapted_layer(adapter: Adapter, rows: Array | None, dense: Dense, x: Array, own: dict[str, Any]) -> Array:
    """The rule of one layer: what goes in, the layer itself, and what is added to what comes out."""
    method = next(layer.method for layer in adapter.layers if layer.path == dense.path)
    numbers, shared = jax.lax.stop_gradient((adapter.numbers, {**adapter.shared, **adapter.numbers}))
    arrays, before, extra = own["arrays"], method.before, method.extra
    if rows is not None:
        if x.shape[0] != rows.shape[0]:
            raise ValueError(
                f"rows must name an adapter for each of the {x.shape[0]} rows at {dense.path!r}, got {rows.shape[0]}"
            )
        take = lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip")
        arrays, numbers, shared = jax.tree.map(take, (arrays, numbers, shared))
        before, extra = jax.vmap(before), jax.vmap(extra, in_axes=(0, 0, None, None, 0, 0))
    is_adapted = own.get("is_adapted")
    inputs: Any = before(x, arrays, shared)
    if inputs is not x:
        inputs = inputs if is_adapted is None else jnp.where(is_adapted, inputs, x)
        inputs = inputs.astype(x.dtype)
    y = dense(inputs)
    term = extra(x, y, dense.kernel, dense.bias, arrays, shared)
    if term is None:
        return y
    if "key" in own:
        rate = jnp.reshape(numbers["dropout"], (-1,) + (1,) * (term.ndim - 1))
        kept = jax.random.bernoulli(own["key"], 1 - rate, term.shape)
        term = jnp.where(kept, term / (1 - rate), 0)
    return y + (term if is_adapted is None else jnp.where(is_adapted, term, 0))
