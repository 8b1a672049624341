"""The pattern language of paths: how a site, or a parameter, is addressed by name.

A path is the ``/``-joined names from the root, such as ``layer_0/attention/query``. In a pattern ``*`` stands for any
characters of one name, ``?`` for one of them, ``[0-3]`` for one of a range, ``{query,value}`` for one of the
alternatives, and ``**`` for any number of names, none included.
"""

import difflib
import functools
import re
from collections.abc import Iterable, Sequence

#: One pattern, or several of which one must match.
Patterns = str | Sequence[str]


def matches(pattern: str, path: str) -> bool:
    """Returns whether the pattern describes the whole path.

    >>> matches("**/query", "layers/attention/query"), matches("*/query", "layers/attention/query")
    (True, False)
    >>> [matches("layer_[01]/{up,down}", path) for path in ("layer_1/down", "layer_2/down", "layer_1/norm")]
    [True, False, False]

    Raises:
      ValueError: if the pattern has no meaning.
    """
    return _regex(pattern).fullmatch(_closed(path)) is not None


def select_paths(patterns: Patterns, paths: Iterable[str], *, argument: str, kind: str) -> list[str]:
    """Returns the paths that any of the patterns describes, in the order of ``paths``.

    Args:
      patterns: one pattern or several.
      paths: what there is.
      argument: name of the caller's argument, for messages.
      kind: what the paths are, in the singular, for messages.

    Raises:
      ValueError: if there is no pattern, or one of them matches nothing; the nearest paths are listed.
    """
    known = list(paths)
    alternatives = [patterns] if isinstance(patterns, str) else list(patterns)
    if not alternatives:
        raise ValueError(f"{argument} must have at least one pattern, got none")
    chosen: set[str] = set()
    for pattern in alternatives:
        found = [path for path in known if matches(pattern, path)]
        if not found:
            near = ", ".join(map(repr, nearest_paths(pattern, known))) or "there are none"
            raise ValueError(f"{argument}: the pattern {pattern!r} matches no {kind}; nearest: {near}")
        chosen.update(found)
    return [path for path in known if path in chosen]


def nearest_paths(pattern: str, paths: Iterable[str], limit: int = 6) -> list[str]:
    """Returns the paths that read most like the pattern, the nearest first."""
    return difflib.get_close_matches(pattern.replace("*", ""), list(paths), n=limit, cutoff=0.0)


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    names = pattern.split("/") if pattern else []
    if "" in names:
        raise ValueError(f"pattern must be names joined by single slashes, got {pattern!r}")
    return re.compile("".join("(?:[^/]+/)*" if name == "**" else f"{_name_regex(name, pattern)}/" for name in names))


def _name_regex(name: str, pattern: str) -> str:
    # The capturing split puts the wildcards at the odd places.
    parts = re.split(r"(\*+|\?|\[[^\]/]+\]|\{[^{}]*\})", name)
    if any(set("[]{}") & set(part) for part in parts[::2]):
        raise ValueError(f"pattern must close its brackets within one name, got {pattern!r}")
    return "".join(_wildcard(part) if i % 2 else re.escape(part) for i, part in enumerate(parts))


def _wildcard(part: str) -> str:
    match part[0]:
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case "{":
            return f"(?:{'|'.join(map(re.escape, part[1:-1].split(',')))})"
        case _:
            return part.replace("[!", "[^", 1)


def _closed(path: str) -> str:
    # With a slash after every name a pattern is a product of names, and the root is the empty product.
    return f"{path}/" if path else ""
