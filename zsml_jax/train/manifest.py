"""A pytree as named arrays plus JSON: what a checkpoint must remember about every leaf.

A leaf is found by its key path, such as ``params/dense/kernel`` or ``layers/0``. Arrays go to the array store;
numbers, strings, ``None``, empty containers and arrays without elements are kept in the JSON itself.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.typing import PyTree

#: One step of a key path: a dict key or attribute, or the index in a sequence.
Entry = str | int
#: ``jax`` and ``numpy`` arrays, a numpy ``scalar``, a typed PRNG ``key``, a Python ``value``, an ``empty`` container.
Kind = Literal["jax", "numpy", "scalar", "key", "value", "empty"]

#: How jax spells the dtype of typed keys, and the name that ``wrap_key_data`` takes.
_KEY_IMPLEMENTATIONS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
_EMPTY = {"dict": {}, "list": [], "tuple": ()}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is known of one leaf before its array is read.

    Attributes:
      path: the key path.
      kind: what the leaf was when it was saved.
      shape: of the array as the caller sees it; a PRNG key array has the shape of its keys.
      dtype: the name of the array's dtype; for PRNG keys, of their implementation.
      value: the Python value, or which container was empty.
    """

    path: tuple[Entry, ...]
    kind: Kind
    shape: tuple[int, ...] = ()
    dtype: str = ""
    value: Any = None

    @property
    def name(self) -> str:
        """The key path as people read it."""
        return "/".join(map(str, self.path))

    @property
    def stored(self) -> bool:
        """Whether the leaf has an array in the array store."""
        return self.kind in ("jax", "numpy", "scalar", "key") and math.prod(self.shape) > 0

    @property
    def is_wide(self) -> bool:
        """Whether JAX, at its enabled precision, cannot hold the array (float64 without ``jax_enable_x64``)."""
        return self.kind != "key" and jax.dtypes.canonicalize_dtype(self.dtype) != np.dtype(self.dtype)

    def __str__(self) -> str:
        match self.kind:
            case "value":
                return f"Python {type(self.value).__name__}"
            case "empty":
                return f"empty {self.value}"
            case "key":
                return f"PRNG key ({self.dtype}) of shape {self.shape}"
            case _:
                return f"{self.dtype}{list(self.shape)}"


def describe(tree: PyTree) -> list[Leaf]:
    """Returns the leaves of a concrete or abstract tree, in the order of :func:`leaves`.

    Raises:
      ValueError: for a leaf that no checkpoint can hold, or a dict key that is neither a string nor an integer; it
        names the key path.
    """
    return [_describe_leaf(_entries(path), leaf) for path, leaf in _flatten(tree)]


def leaves(tree: PyTree) -> list[Any]:
    """Returns the leaves; ``None`` and empty containers count as leaves."""
    return [leaf for _, leaf in _flatten(tree)]


def match(saved: Sequence[Leaf], like: PyTree) -> list[Leaf]:
    """Returns the saved leaves in the order of the leaves of ``like``.

    Raises:
      ValueError: if key paths, shapes, dtypes or types differ; it names all of them.
    """
    expected = {tuple(map(str, leaf.path)): leaf for leaf in describe(like)}
    have = {tuple(map(str, leaf.path)): leaf for leaf in saved}
    problems = [f"{leaf.name}: not in the checkpoint" for path, leaf in expected.items() if path not in have]
    problems += [f"{leaf.name}: in the checkpoint, not in like" for path, leaf in have.items() if path not in expected]
    for path, leaf in expected.items():
        if path in have and (problem := _disagreement(have[path], leaf)):
            problems.append(f"{leaf.name}: {problem}")
    if problems:
        shown = "\n  ".join(problems[:20] + [f"and {len(problems) - 20} more"] * (len(problems) > 20))
        raise ValueError(f"like does not agree with the checkpoint:\n  {shown}")
    return [have[path] for path in expected]


def rebuild(like: PyTree, new_leaves: Sequence[Any]) -> PyTree:
    """Returns ``new_leaves`` in the structure of ``like``."""
    return jax.tree.unflatten(jax.tree.structure(like, is_leaf=_is_leaf), new_leaves)


def nest(items: Iterable[tuple[Sequence[Entry], Any]]) -> Any:
    """Builds nested dicts and lists from pairs of a key path and a leaf.

    An integer entry is the index in a list where the indices of a node are 0, 1, ..., and a dict key otherwise.
    """
    root: dict[Entry, Any] = {}
    for path, leaf in items:
        if not path:
            return leaf
        node = root
        for entry in path[:-1]:
            node = node.setdefault(entry, _Node())
        node[path[-1]] = leaf
    return _listed(root)


def to_json(manifest: Sequence[Leaf]) -> list[dict[str, Any]]:
    """Returns the manifest as JSON values."""
    return [dataclasses.asdict(leaf) for leaf in manifest]


def from_json(records: Sequence[Mapping[str, Any]]) -> list[Leaf]:
    """Inverse of :func:`to_json`."""
    return [
        Leaf(tuple(record["path"]), record["kind"], tuple(record["shape"]), record["dtype"], record["value"])
        for record in records
    ]


def empty_container(leaf: Leaf) -> dict | list | tuple:
    """Returns the empty container that an ``empty`` leaf stands for."""
    return type(_EMPTY[leaf.value])()


class _Node(dict):
    """A dict made by :func:`nest`, so that a leaf that is a dict is left alone."""


def _listed(node: Any) -> Any:
    children = {key: _listed(child) if type(child) is _Node else child for key, child in node.items()}
    is_list = children and all(isinstance(key, int) for key in children) and sorted(children) == [*range(len(children))]
    return [children[i] for i in range(len(children))] if is_list else children


def _is_leaf(node: Any) -> bool:
    return node is None or (isinstance(node, dict | list | tuple) and not node)


def _flatten(tree: PyTree) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_leaf)[0]


def _entries(path: tuple) -> tuple[Entry, ...]:
    entries = []
    for key in path:
        match key:
            case jax.tree_util.DictKey(key=entry):
                if not isinstance(entry, str | int) or isinstance(entry, bool):
                    raise ValueError(
                        f"tree has the dict key {entry!r} at {jax.tree_util.keystr(path)}; "
                        "a checkpoint holds dicts with string or integer keys"
                    )
            case jax.tree_util.GetAttrKey(name=entry) | jax.tree_util.SequenceKey(idx=entry):
                pass
            case _:
                entry = key.key
        entries.append(entry)
    return tuple(entries)


def _describe_leaf(path: tuple[Entry, ...], leaf: Any) -> Leaf:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        if leaf is None or isinstance(leaf, bool | int | float | str):
            return Leaf(path, "value", value=leaf)
        if _is_leaf(leaf):
            return Leaf(path, "empty", value=next(name for name, box in _EMPTY.items() if isinstance(leaf, type(box))))
    elif jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and dtype.name in _KEY_IMPLEMENTATIONS:
        return Leaf(path, "key", tuple(leaf.shape), _KEY_IMPLEMENTATIONS[dtype.name])
    elif isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and _is_numeric(dtype):
        return Leaf(path, "jax", tuple(leaf.shape), np.dtype(dtype).name)
    elif isinstance(leaf, np.ndarray | np.generic) and _is_numeric(dtype):
        return Leaf(path, "scalar" if isinstance(leaf, np.generic) else "numpy", leaf.shape, dtype.name)
    raise ValueError(
        f"tree holds {f'{type(leaf).__name__} of {dtype}' if dtype is not None else f'{type(leaf)}'} at "
        f"{'/'.join(map(str, path)) or 'its root'}; a checkpoint holds numeric arrays, typed PRNG keys, "
        "numbers, strings and None"
    )


def _is_numeric(dtype: Any) -> bool:
    # jnp.issubdtype, unlike numpy's, counts bfloat16 and its kind as numbers.
    return jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)


def _disagreement(saved: Leaf, like: Leaf) -> str:
    groups = {"jax": "array", "numpy": "array", "scalar": "array"}
    same = groups.get(saved.kind, saved.kind) == groups.get(like.kind, like.kind)
    if saved.kind in ("value", "empty"):
        same = same and str(saved) == str(like)
    else:
        same = same and (saved.shape, saved.dtype) == (like.shape, like.dtype)
    if not same:
        return f"saved as {saved}, like has {like}"
    if like.kind == "jax" and saved.is_wide:
        return f"saved as {saved}; enable jax_enable_x64, or give a numpy array in like"
    return ""
