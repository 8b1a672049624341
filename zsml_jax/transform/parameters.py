"""Parameters by path: pick them, or change them, with the patterns that address sites."""

from collections.abc import Callable
from typing import Any

import flax.traverse_util

from zsml_jax.transform.patterns import Patterns, select_paths
from zsml_jax.typing import Params


def select(params: Params, patterns: Patterns) -> dict[str, Any]:
    """Returns the parameters that a pattern describes.

    >>> select({"up": {"kernel": 1, "bias": 2}, "down": {"kernel": 3}}, "**/kernel")
    {'up/kernel': 1, 'down/kernel': 3}

    Args:
      params: nested dict of parameters.
      patterns: of paths such as ``layer_*/mlp/down/kernel`` (:mod:`.patterns`).

    Returns:
      The parameters by path.

    Raises:
      ValueError: if a pattern matches nothing; the nearest paths are listed.
    """
    flat = _flatten(params)
    return {path: flat[path] for path in select_paths(patterns, flat, argument="patterns", kind="parameter")}


def update(params: Params, patterns: Patterns, fn: Callable[[Any, str], Any]) -> dict[str, Any]:
    """Returns the parameters with those that a pattern describes replaced by ``fn(value, path)``.

    What an adapter adds, merged into the kernels once and for all:

    >>> import jax.numpy as jnp
    >>> params = {"up": {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}}
    >>> merged = update(params, "up/kernel", lambda kernel, path: kernel + 1)
    >>> merged["up"]["kernel"].tolist(), merged["up"]["bias"] is params["up"]["bias"]
    ([[2.0, 2.0]], True)

    Args:
      params: nested dict of parameters; it stays as it is.
      patterns: of paths such as ``layer_*/mlp/down/kernel`` (:mod:`.patterns`).
      fn: gets a parameter and its path; what it returns takes the parameter's place, whatever its shape and dtype.

    Returns:
      A new nested dict.

    Raises:
      ValueError: if a pattern matches nothing; the nearest paths are listed.
    """
    changed = {path: fn(value, path) for path, value in select(params, patterns).items()}
    return flax.traverse_util.unflatten_dict({**_flatten(params), **changed}, sep="/")


def _flatten(params: Params) -> dict[str, Any]:
    return dict(flax.traverse_util.flatten_dict(params, sep="/", keep_empty_nodes=True))  # pyrefly: ignore
