"""Parameters by their paths, such as ``layers/attention/query/kernel``, and ordered rules that match them.

A rule is a pair of a regular expression, which must match the whole path, and what it gives. The first rule that
matches decides, and every path must be matched: a parameter that nobody thought of is an error and not a default.
"""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import optax

from zsml_jax.typing import PyTree

T = TypeVar("T")


def path_of(key_path: Sequence[Any]) -> str:
    """Returns the path of JAX's key path, its entries joined by ``/``.

    >>> (key_path, _), *_ = jax.tree_util.tree_leaves_with_path({"layers": [{"kernel": 1.0}]})
    >>> path_of(key_path)
    'layers/0/kernel'
    """
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def paths(tree: PyTree) -> list[str]:
    """Returns the paths of all leaves; what ``optax.masked`` takes out of a tree keeps its place and its path."""
    return [path_of(key_path) for key_path, _ in _leaves(tree)]


def match(rules: Sequence[tuple[str, Any]], tree: PyTree, *, every_rule_matches: bool = False) -> PyTree:
    """Returns the tree with each leaf replaced by the number of the first rule that matches its path.

    >>> match([(".*/bias", "small"), (".*", "large")], {"dense": {"bias": 0.0, "kernel": 1.0}})
    {'dense': {'bias': 0, 'kernel': 1}}

    Args:
      rules: pairs of a regular expression of the whole path and anything.
      tree: parameters, concrete or abstract.
      every_rule_matches: whether a rule whose expression matches no path at all is an error, too.

    Raises:
      ValueError: if paths are matched by no rule, an expression is not valid, or, where that is asked for, matches
        nothing; all of them are named.
    """
    patterns = [_compiled(pattern) for pattern, _ in rules]
    names = paths(tree)
    first = {name: next((i for i, p in enumerate(patterns) if p.fullmatch(name)), None) for name in names}
    uncovered = [name for name, rule in first.items() if rule is None]
    if uncovered:
        raise ValueError(
            f"rules must match every parameter; {len(uncovered)} of {len(names)} are matched by none of "
            f"{[pattern for pattern, _ in rules]}:\n  " + "\n  ".join(uncovered)
        )
    idle = [p.pattern for p in patterns if not any(p.fullmatch(name) for name in names)] if every_rule_matches else []
    if idle:
        shown = "\n  ".join(names[:40] + ["..."] * (len(names) > 40))
        raise ValueError(f"rules must each match a parameter; {idle} match none of\n  {shown}")
    return jax.tree.unflatten(_structure(tree), [first[name] for name in names])


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"rules must hold regular expressions; {pattern!r} is none: {error}") from error


def _is_masked(node: Any) -> bool:
    return isinstance(node, optax.MaskedNode)


def _leaves(tree: PyTree) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_masked)


def _structure(tree: PyTree) -> Any:
    return jax.tree.structure(tree, is_leaf=_is_masked)
