"""How the layers of a model are named in a config: patterns, short names and regular expressions."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from zsml_jax.transform.patterns import Patterns, matches, nearest_paths

T = TypeVar("T")

ALL_LINEAR = "all-linear"
_REGEX = "re:"


def describes(pattern: str, path: str) -> bool:
    """Returns whether a pattern describes the end of a path, or a regular expression the whole.

    >>> [describes(pattern, "layers/mlp/up") for pattern in ("up", "mlp/*", "layers", r"re:.*/(up|down)", "re:up")]
    [True, True, False, True, False]

    Raises:
      ValueError: if the pattern has no meaning.
    """
    if pattern.startswith(_REGEX):
        return _compiled(pattern).fullmatch(path) is not None
    return matches(f"**/{pattern}", path)


def select_layers(patterns: Patterns, paths: Iterable[str], *, argument: str, kind: str) -> list[str]:
    """Returns the paths that any of the patterns describes, in the order of ``paths``; none for no pattern.

    Args:
      patterns: patterns, or ``"all-linear"`` for all paths without a name ``head``.
      paths: what there is.
      argument: name of the config's field, for messages.
      kind: what the paths are, in the singular, for messages.

    Raises:
      ValueError: if one of the patterns describes nothing; the nearest paths are listed.
    """
    known = list(paths)
    if patterns == ALL_LINEAR:
        return [path for path in known if "head" not in path.split("/")]
    alternatives = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in alternatives:
        if not any(describes(pattern, path) for path in known):
            near = ", ".join(map(repr, nearest_paths(pattern.removeprefix(_REGEX), known))) or "there are none"
            raise ValueError(f"{argument}: the pattern {pattern!r} matches no {kind}; nearest: {near}")
    return [path for path in known if any(describes(pattern, path) for pattern in alternatives)]


def first_match(pairs: Sequence[tuple[str, T]], path: str) -> T | None:
    """Returns what the first pattern that describes a path stands for, None if none does."""
    return next((value for pattern, value in pairs if describes(pattern, path)), None)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.removeprefix(_REGEX))
    except re.error as error:
        raise ValueError(f"pattern must be a regular expression after {_REGEX!r}, got {pattern!r}: {error}") from error
