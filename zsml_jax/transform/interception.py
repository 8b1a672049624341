"""Intercept Dense layers: replace what they compute, with their kernel and bias in sight."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax.linen.dtypes import canonicalize_dtype

from zsml_jax.transform.arrays import arrays_of
from zsml_jax.transform.patterns import matches, select_paths
from zsml_jax.transform.sites import ApplyFn, Site
from zsml_jax.transform.transformed import Call, Step, transformed
from zsml_jax.typing import Array, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """A Dense layer in the hands of a rule; called as ``dense(x)`` it computes what it would without the rule.

    Attributes:
      path: its path.
      kernel: ``(d_in, d_out)``, this layer's own in a scanned stack; an array, or what stands for one in the
        parameters, such as a :class:`~zsml_jax.models.quantized.Quantized`.
      bias: ``(d_out,)``, or None.
      dtype: dtype of the output.
      call: the layer, as transforms further in have left it.
    """

    path: str
    kernel: Any
    bias: Array | None
    dtype: Any
    call: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        """Returns the unchanged output, ``(..., d_out)``."""
        return self.call(x)


def intercept(
    apply_fn: ApplyFn,
    rules: Mapping[str, Callable[..., Array]],
    *,
    per_site: Mapping[str, PyTree] | None = None,
    per_layer: PyTree = None,
) -> ApplyFn:
    """Returns an apply function in which rules compute some of the Dense layers.

    A low-rank adapter, trained alone: it is only the extra term, and the parameters of the model keep their paths.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> module = nn.Sequential([nn.Dense(2, use_bias=False), nn.Dense(1, use_bias=False)])
    >>> params = {"layers_0": {"kernel": jnp.eye(2)}, "layers_1": {"kernel": jnp.ones((2, 1))}}
    >>> apply_fn = lambda params, x: module.apply({"params": params}, x)
    >>> def low_rank(dense, x, adapter):
    ...     return dense(x) + (x @ adapter["a"]) @ adapter["b"]
    >>> def loss(adapters, x):
    ...     return intercept(apply_fn, {"layers_0": low_rank}, per_site=adapters)(params, x).sum()
    >>> adapters = {"layers_0": {"a": jnp.ones((2, 1)), "b": jnp.zeros((1, 2))}}
    >>> gradient = jax.jit(jax.grad(loss))(adapters, jnp.array([[1.0, 2.0]]))
    >>> gradient["layers_0"]["b"].tolist()
    [[3.0, 3.0]]

    Args:
      apply_fn: ``(params, *args, **kwargs) -> output``, see :func:`zsml_jax.transform.sites`.
      rules: by pattern, a function called as ``rule(dense, x)``, with this site's and then this layer's arrays behind
        it where they are given; ``dense`` is a :class:`Dense`. It returns ``(..., d_out)``, which is cast to the
        layer's dtype. Of several patterns that describe a layer the first decides.
      per_site: by path the pytree of arrays of that layer; in a scanned stack they have its leading axis l.
      per_layer: a pytree of arrays with a leading axis l, one row for each layer of the model, whether it is scanned
        or its layers have numbered names.

    Returns:
      The apply function; it takes what ``apply_fn`` takes.

    Raises:
      ValueError: when it is called, if a pattern matches no Dense layer, arrays do not fit or are missing, or a rule
        returns another shape.
    """
    return transformed(apply_fn, _Intercept(dict(rules), per_site, per_layer))


@dataclasses.dataclass(frozen=True, eq=False)
class _Intercept(Step):
    rules: dict[str, Callable[..., Array]]
    per_site: Mapping[str, PyTree] | None
    per_layer: PyTree

    def plan(self, found: Mapping[str, Site]) -> dict[str, tuple[PyTree, ...]]:
        dense = [path for path, site in found.items() if site.is_dense]
        paths = select_paths(list(self.rules), dense, argument="rules", kind="Dense layer")
        return arrays_of([found[path] for path in paths], self.per_site, self.per_layer)

    def act(self, call: Call) -> Any:
        path, module = call.site.path, call.module
        rule = next(rule for pattern, rule in self.rules.items() if matches(pattern, path))
        (x,) = call.args
        kernel: Any = module.get_variable("params", "kernel")
        bias: Any = module.get_variable("params", "bias")
        # A kernel may be something that stands for an array, such as a quantised one.
        dtype = canonicalize_dtype(x, jnp.zeros((), kernel.dtype), bias, dtype=getattr(module, "dtype", None))
        y = rule(Dense(path, kernel, bias, dtype, call.proceed), x, *call.arrays)
        shape = (*x.shape[:-1], kernel.shape[-1])
        if jnp.shape(y) != shape:
            raise ValueError(f"rules: the rule at {path!r} must return the shape {shape}, got {jnp.shape(y)}")
        return jnp.asarray(y, dtype)
