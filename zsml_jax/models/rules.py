"""The rule tables between checkpoints and modules: names of a file's tensors to parameter paths, and back.

A family of models is an ordered table of :class:`Rule`. A rule is a pair of templates with the same ``{fields}``, so
that the table can be read in both directions, and an invertible transform::

    Rule("encoder.layer.{i}.output.dense.weight", "layer_{i}/mlp/down/kernel", TRANSPOSE)

Where a module scans its layers, the parameters of all of them are one array with a leading axis; a path with an index
is one row of it, and a tensor that holds several parameters at once has a path for each::

    Rule("model.layers.{i}.mlp.down_proj.weight", "layers[{i}]/mlp/down/kernel", TRANSPOSE)
    Rule("h.{i}.attn.c_attn.bias", ("layers[{i}]/query/bias", "layers[{i}]/key/bias", "layers[{i}]/value/bias"), THIRDS)

:mod:`zsml_jax.models.convert` applies tables.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Transform(NamedTuple):
    """What happens to a tensor between the file and the module, and the way back.

    Where a tensor holds several parameters, ``forward`` gives a tuple of them and ``inverse`` takes it.
    """

    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]


KEEP = Transform(lambda x: x, lambda x: x)
#: torch keeps a dense layer's weight as (out, in), Flax as (in, out).
TRANSPOSE = Transform(lambda x: x.T, lambda x: x.T)
#: Three parameters side by side on the last axis.
THIRDS = Transform(
    lambda x: tuple(x[..., i * (x.shape[-1] // 3) : (i + 1) * (x.shape[-1] // 3)] for i in range(3)),
    lambda parts: np.concatenate(parts, axis=-1),
)


def interleaved_thirds(num_heads: int) -> Transform:
    """Three dense layers in one as torch keeps it, (out, in), each head with its rows of the first, second, third."""

    def forward(x: Any) -> tuple[Any, ...]:
        y = x.reshape(num_heads, 3, -1, *x.shape[1:])
        return tuple(y[:, i].reshape(-1, *x.shape[1:]).T for i in range(3))

    def inverse(parts: Sequence[Any]) -> Any:
        heads = [part.T.reshape(num_heads, -1, *part.T.shape[1:]) for part in parts]
        return np.stack(heads, axis=1).reshape(-1, *parts[0].T.shape[1:])

    return Transform(forward, inverse)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One line of a table.

    Attributes:
      source: template of the tensor's name; a ``{field}`` stands for a number.
      path: template of the parameter's path with the same fields, ``name[{field}]`` for a row of stacked parameters; a
        tuple of them for a tensor that holds several; None for a tensor that is left out on purpose, whose ``source``
        may then end in ``*`` for any rest.
      transform: from the file's layout to the module's.
      dtype: name of the dtype that its parameters have whatever the model is loaded in; the model's if None.
    """

    source: str
    path: str | tuple[str, ...] | None
    transform: Transform = KEEP
    dtype: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The templates of all its paths."""
        return () if self.path is None else (self.path,) if isinstance(self.path, str) else self.path

    def match(self, name: str) -> re.Match[str] | None:
        """Returns the match of a tensor's name, whose groups are the fields."""
        return _regex(self.source).fullmatch(name)

    def parts(self, tensor: Any) -> tuple[Any, ...]:
        """Returns the parameters that a tensor holds, in the order of :attr:`paths`."""
        out = self.transform.forward(tensor)
        return out if isinstance(self.path, tuple) else (out,)

    def tensor(self, parts: Sequence[Any]) -> Any:
        """Returns the tensor that holds the parameters: the inverse of :meth:`parts`."""
        return self.transform.inverse(tuple(parts) if isinstance(self.path, tuple) else parts[0])


def dense_rules(source: str, path: str, kernel: Transform = TRANSPOSE) -> tuple[Rule, Rule]:
    """Returns the rules of a dense layer.

    Args:
      source: template of the layer's name in the file, whose ``weight`` and ``bias`` they are.
      path: template of its path, whose ``kernel`` and ``bias`` they become.
      kernel: from weight to kernel ``(d_in, d_out)``.
    """
    return Rule(f"{source}.weight", f"{path}/kernel", kernel), Rule(f"{source}.bias", f"{path}/bias")


def norm_rules(source: str, path: str) -> tuple[Rule, Rule]:
    """Returns the rules of a norm, whose weight is a scale; templates as for :func:`dense_rules`."""
    return Rule(f"{source}.weight", f"{path}/scale"), Rule(f"{source}.bias", f"{path}/bias")


def left_out(*sources: str) -> tuple[Rule, ...]:
    """Returns the rules of tensors that are left out on purpose, by templates of their names."""
    return tuple(Rule(source, None) for source in sources)


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

    def find(self, name: str) -> tuple[Rule, Any] | None:
        """Returns the rule of a tensor and what it is, or None if no rule matches.

        The second is formed as the rule's ``path``: None, a path, or a tuple of paths, with the numbers filled in.
        """
        for rule in self.rules:
            if match := rule.match(self.canonical(name)):
                paths = tuple(path.format(**match.groupdict()) for path in rule.paths)
                return rule, None if rule.path is None else paths[0] if isinstance(rule.path, str) else paths
        return None

    def source_of(self, path: str) -> tuple[Rule, str, tuple[str, ...]] | None:
        """Returns the rule and name of the tensor that holds a parameter, and the paths of all that it holds."""
        for rule in self.rules:
            for template in rule.paths:
                if match := _regex(template).fullmatch(path):
                    fields = match.groupdict()
                    return rule, rule.source.format(**fields), tuple(each.format(**fields) for each in rule.paths)
        return None

    @property
    def stacks(self) -> frozenset[str]:
        """The names of stacked parameters, such as ``layers``."""
        return frozenset(path.partition("[")[0] for rule in self.rules for path in rule.paths if "[" in path)


def slots_of(table: Table, path: str, leaf: Any) -> tuple[str, ...]:
    """Returns the paths that rules give to a parameter: of each of its rows where it is stacked.

    Args:
      table: the family's rules.
      path: the parameter's.
      leaf: the parameter, which has a shape.
    """
    for stack in table.stacks:
        if path.startswith(f"{stack}/"):
            return tuple(f"{stack}[{i}]{path[len(stack) :]}" for i in range(leaf.shape[0]))
    return (path,)


@functools.cache
def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template.removesuffix("*"))
    pattern = "".join(rf"(?P<{part}>\d+)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    return re.compile(pattern + (".*" if template.endswith("*") else ""))
