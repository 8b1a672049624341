"""The sites of a model: every submodule that runs, with its shapes, found by tracing without computing."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from zsml_jax.typing import Params, PyTree

#: ``(params, *args, **kwargs) -> output``, a pure function that gives its params to a Linen module as they are.
ApplyFn = Callable[..., Any]

#: Names of what transforms put among the parameters start so; no Linen name has a colon.
PREFIX = "transform:"
_TRACING = f"{PREFIX}sites:"


@dataclasses.dataclass(frozen=True)
class Site:
    """One submodule.

    Attributes:
      path: its path below the root module; scanned layers share one.
      module: the name of its class.
      is_dense: whether it is a ``nn.Dense``, with ``kernel`` and maybe ``bias``.
      params: shapes and dtypes of its own and its submodules' parameters, without the axes of ``stack``.
      input: shape of the first positional argument of its ``__call__``; None if it is called without one.
      output: shape of what ``__call__`` returns.
      stack: leading axes that its parameters have in addition, ``(l,)`` in a scanned stack of l layers, else ``()``.
      layer: its number, if no scan stacks it: that of the first name on the path that ends in one, such as ``layer_3``.
      num_layers: the layers that are alike, which is l in a stack; None without numbered names.
    """

    path: str
    module: str
    is_dense: bool
    params: PyTree
    input: PyTree
    output: PyTree
    stack: tuple[int, ...]
    layer: int | None = None
    num_layers: int | None = None


def sites(apply_fn: ApplyFn, params: Params, *args: Any, **kwargs: Any) -> dict[str, Site]:
    """Lists where a model can be transformed.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> module = nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)])
    >>> x = jnp.ones((1, 3))
    >>> params = module.init(jax.random.key(0), x)["params"]
    >>> apply_fn = lambda params, x: module.apply({"params": params}, x)
    >>> for path, site in sites(apply_fn, params, x).items():
    ...     print(path, site.module, site.input.shape, site.output.shape)
     Sequential (1, 3) (1, 2)
    layers_0 Dense (1, 3) (1, 4)
    layers_2 Dense (1, 4) (1, 2)

    Args:
      apply_fn: ``(params, *args, **kwargs) -> output``; it gives its params to one Linen module as they are, and is not
        jitted itself.
      params: the parameters, arrays or their shapes (:class:`jax.ShapeDtypeStruct`).
      *args: what it is called with; arrays or their shapes, and static values.
      **kwargs: the same, by name.

    Returns:
      The sites by path, in the order in which they are called; nothing is computed. The root's path is empty.

    Raises:
      ValueError: if ``apply_fn`` is jitted, runs no Linen module, or runs it with other parameters.
    """
    if isinstance(apply_fn, jax.stages.Wrapped):
        raise ValueError(
            "apply_fn must not be jitted itself, since a compiled function no longer sees transforms; "
            "transform the plain function and jit the result"
        )
    if not isinstance(params, Mapping):
        raise ValueError(f"params must be a nested dict of parameters, got {type(params).__name__}")
    found: dict[str, Site] = {}
    leaves, treedef = jax.tree.flatten((params, args, kwargs))
    is_array = [isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct) for leaf in leaves]

    def trace(arrays: list[Any]) -> None:
        rest = iter(arrays)
        merged = [next(rest) if dynamic else leaf for leaf, dynamic in zip(leaves, is_array, strict=True)]
        own, positional, named = jax.tree.unflatten(treedef, merged)
        with nn.intercept_methods(_recorder(own, found)):
            apply_fn({**own, f"{_TRACING}{tracing_depth(own)}": {}}, *positional, **named)

    jax.eval_shape(trace, [leaf for leaf, dynamic in zip(leaves, is_array, strict=True) if dynamic])
    if not found:
        raise ValueError("apply_fn must run a Linen module, and not inside a jitted function; none was called")
    return _numbered(found)


def tracing_depth(params: Params) -> int:
    """Returns how many listings of sites are under way around a call that got these parameters."""
    return sum(key.startswith(_TRACING) for key in params)


def is_traced_for_sites(scope: Any, depth: int) -> bool:
    """Returns whether a module's root scope belongs to a listing of sites below ``depth`` others."""
    return scope.root.has_variable("params", f"{_TRACING}{depth}")


def _recorder(params: Params, found: dict[str, Site]) -> Callable[..., Any]:
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(next_fun: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        inside_itself = bool(calls) and calls[-1][0] is module  # super().__call__
        if context.method_name != "__call__" or inside_itself or module.scope is None:
            return next_fun(*args, **kwargs)
        own = _shapes(_without_transforms(module.variables.get("params", {})))
        stack = _stack(own, params, module.path)
        if stack is None:
            stack = calls[-1][1] if calls else ()
        path = "/".join(module.path)
        # A parent stands before its children: it is entered first, though it returns last.
        found.setdefault(path, Site(path, "", False, None, None, None, ()))
        calls.append((module, stack))
        try:
            output = next_fun(*args, **kwargs)
        finally:
            calls.pop()
        dense = isinstance(module, nn.Dense)
        first = _shapes(args[0]) if args else None
        found[path] = Site(path, type(module).__name__, dense, own, first, _shapes(output), stack)
        return output

    return record


def _stack(own: PyTree, params: Params, path: tuple[str, ...]) -> tuple[int, ...] | None:
    """Returns the leading axes that the parameters at ``path`` have more than the module sees; None if it has none."""
    inner = jax.tree.leaves(own)
    if not inner:
        return None
    node: Any = params
    for name in path:
        node = node.get(name, {}) if isinstance(node, Mapping) else {}
    outer = jax.tree.leaves(_shapes(_without_transforms(node)))
    extra = outer[0].ndim - inner[0].ndim if len(outer) == len(inner) else -1
    lead = outer[0].shape[: max(extra, 0)] if outer else ()
    if extra < 0 or any(o.shape != lead + i.shape for o, i in zip(outer, inner, strict=True)):
        raise ValueError(
            f"apply_fn must give its params to the Linen module as they are, with stacked layers on the leading axis; "
            f"the module at {'/'.join(path)!r} runs with other parameters"
        )
    return lead


def _numbered(found: Mapping[str, Site]) -> dict[str, Site]:
    kin: dict[tuple[str, ...], int] = {}
    numbers = {path: _number(path) for path in found}
    for number in filter(None, numbers.values()):
        kin[number[0]] = max(kin.get(number[0], 0), number[1] + 1)
    numbered = {}
    for path, site in found.items():
        number = numbers[path]
        if site.stack:
            numbered[path] = dataclasses.replace(site, num_layers=site.stack[0])
        elif number is not None:
            numbered[path] = dataclasses.replace(site, layer=number[1], num_layers=kin[number[0]])
        else:
            numbered[path] = site
    return numbered


def _number(path: str) -> tuple[tuple[str, ...], int] | None:
    names = path.split("/")
    for i, name in enumerate(names):
        if match := re.fullmatch(r"(.*_|)(\d+)", name):
            return (*names[:i], match[1]), int(match[2])
    return None


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf, tree
    )


def _without_transforms(tree: Any) -> Any:
    if not isinstance(tree, Mapping):
        return tree
    return {key: _without_transforms(value) for key, value in tree.items() if not key.startswith(PREFIX)}
