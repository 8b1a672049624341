"""Edit activations: replace what goes into submodules, or what comes out of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.transform.arrays import arrays_of
from zsml_jax.transform.patterns import Patterns, select_paths
from zsml_jax.transform.sites import ApplyFn, Site
from zsml_jax.transform.transformed import Call, Step, transformed
from zsml_jax.typing import PyTree


def edit(
    apply_fn: ApplyFn,
    sites: Patterns,
    fn: Callable[..., Any],
    *,
    of: Literal["output", "input"] = "output",
    per_site: Mapping[str, PyTree] | None = None,
    per_layer: PyTree = None,
) -> ApplyFn:
    """Returns an apply function in which ``fn`` replaces the activations of some submodules.

    Steering with a vector for each layer, which never recompiles when the vectors change, since they are arguments of
    the jitted function:

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> module = nn.Sequential([nn.Dense(2, use_bias=False), nn.Dense(2, use_bias=False)])
    >>> eye = {"kernel": jnp.eye(2)}
    >>> params = {"layers_0": eye, "layers_1": eye}
    >>> apply_fn = lambda params, x: module.apply({"params": params}, x)
    >>> @jax.jit
    ... def steered(vectors, x):
    ...     return edit(apply_fn, "layers_*", lambda x, vector: x + vector, per_layer=vectors)(params, x)
    >>> steered(jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros((1, 2))).tolist()
    [[1.0, 2.0]]

    An ``fn`` that adds zero changes no bit. In bfloat16 this needs ``jax.jit(..., compiler_options={
    "xla_allow_excess_precision": False})``, since XLA may else skip roundings between operations that it fuses.

    Args:
      apply_fn: ``(params, *args, **kwargs) -> output``, see :func:`zsml_jax.transform.sites`.
      sites: patterns of paths; a site that several describe is edited once.
      fn: called as ``fn(value)``, with this site's and then this layer's arrays behind it where they are given. It
        returns the new value, of the same structure and shapes; it is cast to the dtype of the old one. Other arrays,
        such as a mask of rows and positions, may simply be closed over.
      of: ``"output"`` for what the submodule returns, whatever its structure; ``"input"`` for its first argument.
      per_site: by path a pytree of arrays; in a scanned stack they have its leading axis l.
      per_layer: a pytree of arrays with a leading axis l, one row for each layer of the model, whether it is scanned
        or its layers have numbered names.

    Returns:
      The apply function; it takes what ``apply_fn`` takes.

    Raises:
      ValueError: when it is called, if a pattern matches nothing, arrays do not fit, or ``fn`` changes a shape.
    """
    if of not in ("output", "input"):
        raise ValueError(f"of must be 'output' or 'input', got {of!r}")
    return transformed(apply_fn, _Edit(sites, fn, of, per_site, per_layer))


@dataclasses.dataclass(frozen=True, eq=False)
class _Edit(Step):
    sites: Patterns
    fn: Callable[..., Any]
    of: str
    per_site: Mapping[str, PyTree] | None
    per_layer: PyTree

    def plan(self, found: Mapping[str, Site]) -> dict[str, tuple[PyTree, ...]]:
        paths = select_paths(self.sites, found, argument="sites", kind="submodule")
        return arrays_of([found[path] for path in paths], self.per_site, self.per_layer)

    def act(self, call: Call) -> Any:
        if self.of == "output":
            value = call.proceed(*call.args, **call.kwargs)
            return _like(value, self.fn(value, *call.arrays), call.site.path)
        value = first_input(call)
        return call.proceed(_like(value, self.fn(value, *call.arrays), call.site.path), *call.args[1:], **call.kwargs)


def first_input(call: Call) -> Any:
    """Returns the first positional argument of a call."""
    if not call.args:
        raise ValueError(f"of: {call.site.path!r} is called without a positional argument, so it has no 'input'")
    return call.args[0]


def _like(old: PyTree, new: PyTree, path: str) -> PyTree:
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise ValueError(
            f"fn must return the structure it got at {path!r}, {jax.tree.structure(old)}, got {jax.tree.structure(new)}"
        )
    return jax.tree.map(lambda a, b: _cast(a, b, path), old, new)


def _cast(old: Any, new: Any, path: str) -> Any:
    if np.shape(new) != np.shape(old):
        raise ValueError(f"fn must return the shape it got at {path!r}, {np.shape(old)}, got {np.shape(new)}")
    return new if new is old else jnp.asarray(new, jnp.asarray(old).dtype)
