"""The loader's rule tables: names of a checkpoint's tensors to parameter paths.

A family of models is an ordered table of :class:`Rule`. A rule is a pair of templates with the same ``{fields}``, so
that the table can be read in both directions, and an invertible transform::

    Rule("encoder.layer.{i}.output.dense.weight", "layer_{i}/mlp/down/kernel", TRANSPOSE)

:func:`convert` applies a table and, before it reads a single tensor, compares names and shapes with the abstract
parameters of the module: everything that is missing, unexpected or misshapen is reported at once.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.typing import Array, PyTree


class Transform(NamedTuple):
    """What happens to a tensor between the file and the module, and the way back."""

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]


KEEP = Transform(lambda x: x, lambda x: x)
#: torch keeps a dense layer's weight as (out, in), Flax as (in, out).
TRANSPOSE = Transform(lambda x: x.T, lambda x: x.T)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      source: template of the tensor's name; a ``{field}`` stands for a number.
      path: template of the parameter's path with the same fields; None for a tensor that is left out on purpose, whose
        ``source`` may then end in ``*`` for any rest.
      transform: from the file's layout to the module's.
    """

    source: str
    path: str | None
    transform: Transform = KEEP

    def match(self, name: str) -> re.Match[str] | None:
        """Returns the match of a tensor's name, whose groups are the fields."""
        return _regex(self.source).fullmatch(name)


@dataclasses.dataclass(frozen=True)
class Table:
    """The rules of a family.

    Attributes:
      rules: tried in order; the first that matches decides.
      renames: pairs (regular expression, replacement) that bring older and prefixed names to the ones of the rules.
    """

    rules: tuple[Rule, ...]
    renames: tuple[tuple[str, str], ...] = ()

    def canonical(self, name: str) -> str:
        """Returns the name that the rules know."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def find(self, name: str) -> tuple[Rule, str | None] | None:
        """Returns the rule of a tensor and the path it goes to, or None if no rule matches."""
        for rule in self.rules:
            if match := rule.match(self.canonical(name)):
                return rule, None if rule.path is None else rule.path.format(**match.groupdict())
        return None


def convert(
    table: Table, tensors: Mapping[str, LazyTensor], expected: PyTree, *, dtype: jax.typing.DTypeLike, source: str
) -> dict[str, Any]:
    """Reads a checkpoint into the parameters of a module.

    Args:
      table: the family's rules.
      tensors: the checkpoint.
      expected: the module's parameters, abstract (from :func:`jax.eval_shape`).
      dtype: dtype of the parameters.
      source: name of the checkpoint, for messages.

    Returns:
      The parameters, structured and shaped as ``expected``.

    Raises:
      ValueError: if parameters are missing, unexpected, misshapen or not finite; all of them are listed.
    """
    wanted: dict[str, jax.ShapeDtypeStruct] = flax.traverse_util.flatten_dict(expected, sep="/")  # pyrefly: ignore
    plan: dict[str, tuple[str, Rule]] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        found = table.find(name)
        if found is None:
            problems.append(f"unexpected: {name} {tensor.shape} matches no rule")
            continue
        rule, path = found
        if path is None:
            continue
        if path not in wanted:
            problems.append(f"unexpected: {name} {tensor.shape} would be {path}, which the configuration does not have")
        elif path in plan:
            problems.append(f"unexpected: {name} and {plan[path][0]} are both {path}")
        elif (shape := _shape(rule.transform, tensor)) != wanted[path].shape:
            problems.append(f"misshapen: {name} gives {path} the shape {shape}, must be {wanted[path].shape}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            problems.append(f"not floating point: {name} is {tensor.dtype}")
        if path in wanted:
            plan.setdefault(path, (name, rule))
    problems += [f"missing: {path} {wanted[path].shape}" for path in wanted if path not in plan]
    _raise_if(problems, f"{source} does not fit its configuration")
    params = {}
    for path, (name, rule) in plan.items():
        with np.errstate(over="ignore"):  # reported below, by name
            value = np.asarray(rule.transform.forward(tensors[name].read())).astype(dtype)
        if not np.isfinite(value.astype(np.float32, copy=False)).all():
            problems.append(f"not finite as {jnp.dtype(dtype)}: {name}")
        params[path] = _on_device(value)
    _raise_if(problems, f"{source} has damaged weights")
    return flax.traverse_util.unflatten_dict(params, sep="/")


def _on_device(value: np.ndarray) -> Array:
    return jnp.asarray(np.ascontiguousarray(value))


def _shape(transform: Transform, tensor: LazyTensor) -> tuple[int, ...]:
    return jax.eval_shape(transform.forward, jax.ShapeDtypeStruct(tensor.shape, jnp.float32)).shape


def _raise_if(problems: Sequence[str], headline: str) -> None:
    if problems:
        raise ValueError("\n  ".join([f"{headline}; {len(problems)} problems:", *problems]))


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template.removesuffix("*"))
    pattern = "".join(rf"(?P<{part}>\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile(pattern + (".*" if template.endswith("*") else ""))
