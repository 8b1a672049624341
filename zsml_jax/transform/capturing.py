"""Capture activations: hand out what goes into submodules, or what comes out of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from zsml_jax.transform.editing import first_input
from zsml_jax.transform.patterns import Patterns, select_paths
from zsml_jax.transform.sites import ApplyFn, Site
from zsml_jax.transform.transformed import Call, Step, transformed
from zsml_jax.typing import PyTree


def capture(
    apply_fn: ApplyFn,
    sites: Patterns,
    fn: Callable[[Any], PyTree] | None = None,
    *,
    of: Literal["output", "input"] = "output",
) -> ApplyFn:
    """Returns an apply function that also returns the activations of some submodules.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> module = nn.Sequential([nn.Dense(2, use_bias=False), nn.relu, nn.Dense(1)])
    >>> params = {"layers_0": {"kernel": jnp.eye(2)}, "layers_2": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}
    >>> apply_fn = lambda params, x: module.apply({"params": params}, x)
    >>> output, captured = capture(apply_fn, "layers_*", of="input")(params, jnp.array([[1.0, -1.0]]))
    >>> output.tolist(), captured["layers_2"].tolist()
    ([[1.0]], [[1.0, 0.0]])

    Args:
      apply_fn: ``(params, *args, **kwargs) -> output``, see :func:`zsml_jax.transform.sites`.
      sites: patterns of paths.
      fn: what to keep of a value, such as its last valid position; everything if None. Under ``jit`` the rest is never
        stored. It runs inside a scanned stack, for each layer.
      of: ``"output"`` for what the submodule returns, whatever its structure; ``"input"`` for its first argument.

    Returns:
      The apply function; it returns ``(output, {path: value})``. Values from a scanned stack have its leading axis l.
      The second and later calls of a shared submodule are at ``path#1``, ``path#2``, ...

    Raises:
      ValueError: when it is called, if a pattern matches nothing, or a stack lets no values out
        (:data:`zsml_jax.transform.STACK_CONTRACT`).
    """
    if of not in ("output", "input"):
        raise ValueError(f"of must be 'output' or 'input', got {of!r}")
    return transformed(apply_fn, _Capture(sites, fn, of))


@dataclasses.dataclass(frozen=True, eq=False)
class _Capture(Step):
    sites: Patterns
    fn: Callable[[Any], PyTree] | None
    of: str
    captures = True

    def plan(self, found: Mapping[str, Site]) -> dict[str, tuple[PyTree, ...]]:
        return dict.fromkeys(select_paths(self.sites, found, argument="sites", kind="submodule"), ())

    def act(self, call: Call) -> Any:
        if self.of == "input":
            value = first_input(call)
            call.emit(value if self.fn is None else self.fn(value))
            return call.proceed(*call.args, **call.kwargs)
        value = call.proceed(*call.args, **call.kwargs)
        call.emit(value if self.fn is None else self.fn(value))
        return value
