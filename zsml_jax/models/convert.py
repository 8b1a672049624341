"""Checkpoints into parameters and parameters into checkpoints, by the rules of a table.

:func:`convert` compares names and shapes with the abstract parameters of the module before it reads a single tensor:
everything that is missing, unexpected or misshapen is reported at once. :func:`revert` goes the other way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.lazy_tensor import LazyTensor, Outgoing
from zsml_jax.models.quantized import Quantized
from zsml_jax.models.quantized_files import StoredKernel, read_stacked
from zsml_jax.models.quantized_layouts import Layout, tensors_of
from zsml_jax.models.rules import Rule, Table, slots_of
from zsml_jax.typing import Array, PyTree

#: Where each parameter goes: one sharding for all, a pytree of them, or a function of the parameter's path. The arrays
#: of a quantised kernel are parameters of their own, such as ``layers/mlp/up/kernel/codes``.
Placement: TypeAlias = jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | PyTree | None


def convert(
    table: Table,
    tensors: Mapping[str, LazyTensor],
    expected: PyTree,
    *,
    dtype: jax.typing.DTypeLike,
    source: str,
    sharding: Placement = None,
    kernels: Mapping[str, StoredKernel] | None = None,
) -> dict[str, Any]:
    """Reads a checkpoint into the parameters of a module.

    Args:
      table: the family's rules.
      tensors: the checkpoint.
      expected: the module's parameters, abstract (from :func:`jax.eval_shape`), with abstract quantised kernels.
      dtype: dtype of the parameters, but for those whose rule names one.
      source: name of the checkpoint, for messages.
      sharding: where each parameter goes; the default device if None. The host holds one parameter at a time.
      kernels: quantised kernels, by the paths that rules give.

    Returns:
      The parameters, structured and shaped as ``expected``.

    Raises:
      ValueError: if parameters are missing, unexpected, misshapen or not finite; all of them are listed.
    """
    return Checkpoint(table, tensors, expected, dtype=dtype, source=source, kernels=kernels).params(sharding)


class Checkpoint:
    """A checkpoint that fits a module: its parameters all at once, or one by one when they are asked for.

    Attributes:
      table: the family's rules.
      expected: the module's parameters, abstract.
    """

    def __init__(
        self,
        table: Table,
        tensors: Mapping[str, LazyTensor],
        expected: PyTree,
        *,
        dtype: jax.typing.DTypeLike,
        source: str,
        kernels: Mapping[str, StoredKernel] | None = None,
    ):
        """Compares names and shapes before anything is read; arguments and errors are those of :func:`convert`."""
        wanted = {
            slot: leaf.shape[slot != path :]
            for path, leaf in _leaves(expected).items()
            if not isinstance(leaf, Quantized)
            for slot in slots_of(table, path, leaf)
        }
        self._plan, problems = _plan(table, tensors, wanted)
        _raise_if(problems, f"{source} does not fit its configuration")
        self.table, self.expected = table, expected
        self._tensors, self._kernels, self._dtype, self._source = tensors, kernels or {}, dtype, source

    def params(self, sharding: Placement = None) -> dict[str, Any]:
        """Reads all parameters, see :func:`convert`."""
        leaves = _leaves(self.expected)
        place = _placement(sharding, leaves)
        params: dict[str, Any] = {}
        problems: list[str | None] = []
        for path, leaf in leaves.items():
            slots = slots_of(self.table, path, leaf)
            stacked = slots != (path,)
            if isinstance(leaf, Quantized):
                kernel = read_stacked([self._kernels[slot] for slot in slots], stacked=stacked)
                problems.append(None if np.isfinite(kernel.scale).all() else f"not finite: the scales of {path}")
                params[path] = _on_device_leaf_by_leaf(kernel, place[path])
                continue
            value = np.empty(leaf.shape if stacked else (0,), self._plan[slots[0]][1].dtype or self._dtype)
            for i, slot in enumerate(slots):
                row, problem = self._read(slot)
                problems.append(problem)
                if stacked:
                    value[i] = row
                else:
                    value = row
            params[path] = _on_device(value, place[path])
        _raise_if([problem for problem in problems if problem], f"{self._source} has damaged weights")
        return flax.traverse_util.unflatten_dict(params, sep="/")

    def read(self, slot: str) -> Any:
        """Reads one parameter, an array or a quantised kernel, by the path that rules give.

        Raises:
          ValueError: if it is not finite.
        """
        if slot in self._kernels:
            return self._kernels[slot].read()
        row, problem = self._read(slot)
        _raise_if([problem] if problem else [], f"{self._source} has damaged weights")
        return row

    def _read(self, slot: str) -> tuple[np.ndarray, str | None]:
        """A parameter that is not quantised, and what is wrong with it."""
        name, rule, part = self._plan[slot]
        dtype = rule.dtype or self._dtype
        with np.errstate(over="ignore"):  # what is too large for the dtype is reported by name
            row = np.asarray(rule.parts(self._tensors[name].read())[part]).astype(dtype, copy=False)
        return row, None if np.isfinite(row).all() else f"not finite as {jnp.dtype(dtype)}: {name}"


def revert(table: Table, params: PyTree, *, layout: Layout | None = None) -> dict[str, Outgoing]:
    """Returns the tensors of a checkpoint that holds the parameters of a module: the inverse of :func:`convert`.

    Args:
      table: the family's rules.
      params: the parameters.
      layout: how quantised kernels lie in the file; there are none if None.

    Returns:
      The tensors by name, fetched when they are read.

    Raises:
      ValueError: if a parameter has no name in the file, or a tensor of several parameters lacks one, or only some of
        them are quantised; all are listed.
    """
    rows: dict[str, Any] = {}
    for path, leaf in _leaves(params).items():
        slots = slots_of(table, path, leaf)
        rows |= {slot: _Row(leaf, i if slots != (path,) else None) for i, slot in enumerate(slots)}
    return _reverted(table, rows, layout)


def revert_slots(table: Table, slots: Mapping[str, Any], *, layout: Layout | None = None) -> dict[str, Outgoing]:
    """Returns what :func:`revert` does, of some parameters by the paths that rules give."""
    return _reverted(table, {slot: _Row(leaf, None) for slot, leaf in slots.items()}, layout)


class _Row(NamedTuple):
    """A parameter, or a row of a stacked one."""

    leaf: Any
    index: int | None

    @property
    def nbytes(self) -> int:
        return self.leaf.nbytes // (1 if self.index is None else self.leaf.shape[0])

    @property
    def kernel(self) -> Quantized:
        """The shapes of a quantised kernel."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[self.index is not None :], x.dtype), self.leaf)

    def read(self) -> Any:
        return jax.tree.map(lambda x: np.asarray(x if self.index is None else x[self.index]), self.leaf)


def _reverted(table: Table, rows: Mapping[str, _Row], layout: Layout | None) -> dict[str, Outgoing]:
    tensors: dict[str, Outgoing] = {}
    left = dict.fromkeys(rows)
    problems: list[str] = []
    for slot in rows:
        found = table.source_of(slot)
        if found is None:
            problems.append(f"{slot} has no name in the checkpoint")
        elif slot in left:
            rule, name, parts = found
            problems += [f"{name} lacks {part}" for part in parts if part not in rows]
            present = [part for part in parts if part in rows]
            quantised = [part for part in present if isinstance(rows[part].leaf, Quantized)]
            if quantised and len(quantised) < len(parts):
                problems.append(f"{name} holds {', '.join(parts)}, of which only {', '.join(quantised)} are quantised")
            elif quantised:
                numbers = range(len(parts)) if isinstance(rule.path, tuple) else (None,)
                for number, part in zip(numbers, parts, strict=True):
                    tensors |= tensors_of(name, number, rows[part].kernel, rows[part].read, layout or "own")
            else:
                whole = lambda rule=rule, parts=parts: rule.tensor([rows[part].read() for part in parts])
                size = sum(rows[part].nbytes for part in present)
                tensors[name] = Outgoing(size, lambda whole=whole: np.asarray(whole(), order="C"))
            for part in parts:
                left.pop(part, None)
    _raise_if(problems, "the parameters do not fit the model's type")
    return tensors


def _leaves(tree: PyTree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")  # pyrefly: ignore


def _plan(
    table: Table, tensors: Mapping[str, LazyTensor], wanted: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[str, Rule, int]], list[str]]:
    """The tensor, rule and part of each wanted path, and everything that does not fit."""
    plan: dict[str, tuple[str, Rule, int]] = {}
    problems: list[str] = []
    for name, tensor in tensors.items():
        found = table.find(name)
        if found is None:
            problems.append(f"unexpected: {name} {tensor.shape} matches no rule")
            continue
        rule, paths = found
        if paths is None:
            continue
        paths = (paths,) if isinstance(paths, str) else paths
        shapes = _shapes(rule, tensor)
        if shapes is None:
            problems.append(f"misshapen: {name} {tensor.shape} cannot be split into {', '.join(paths)}")
            shapes = tuple(wanted.get(path, ()) for path in paths)
        for part, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
            if path not in wanted:
                problems.append(
                    f"unexpected: {name} {tensor.shape} would be {path}, which the configuration does not have"
                )
            elif path in plan:
                problems.append(f"unexpected: {name} and {plan[path][0]} are both {path}")
            elif shape != wanted[path]:
                problems.append(f"misshapen: {name} gives {path} the shape {shape}, must be {wanted[path]}")
            elif not jnp.issubdtype(tensor.dtype, jnp.floating):
                problems.append(f"not floating point: {name} is {tensor.dtype}")
            if path in wanted:
                plan.setdefault(path, (name, rule, part))
    problems += [f"missing: {path} {shape}" for path, shape in wanted.items() if path not in plan]
    return plan, problems


def _placement(sharding: Placement, leaves: Mapping[str, Any]) -> Mapping[str, jax.sharding.Sharding | None]:
    if sharding is None or isinstance(sharding, jax.sharding.Sharding):
        return dict.fromkeys(leaves, sharding)
    if callable(sharding):
        of_leaf = lambda path: lambda field, _: sharding(path + jax.tree_util.keystr(field, separator="/", simple=True))
        place = {path: sharding(path) for path, leaf in leaves.items() if not isinstance(leaf, Quantized)}
        return place | {
            path: jax.tree_util.tree_map_with_path(of_leaf(f"{path}/"), leaf)
            for path, leaf in leaves.items()
            if isinstance(leaf, Quantized)
        }
    if not isinstance(sharding, Mapping):
        raise ValueError(
            "sharding must be a Sharding, a nested dict of them, or a function of a parameter's path, "
            f"got {type(sharding).__name__}"
        )
    given = _leaves(sharding)
    if differing := sorted(set(given) ^ set(leaves)):
        raise ValueError(f"sharding must have the structure of the parameters; they differ at {differing}")
    return given


def _on_device_leaf_by_leaf(kernel: Quantized, sharding: Any) -> Quantized:
    if isinstance(sharding, Quantized):
        return jax.tree.map(_on_device, kernel, sharding)
    return jax.tree.map(lambda leaf: _on_device(leaf, sharding), kernel)


def _on_device(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> Array:
    # Waiting lets go of the value before the next one is read.
    if sharding is None:
        return jax.device_put(value).block_until_ready()
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index]).block_until_ready()


def _shapes(rule: Rule, tensor: LazyTensor) -> tuple[tuple[int, ...], ...] | None:
    try:
        parts = jax.eval_shape(rule.parts, jax.ShapeDtypeStruct(tensor.shape, jnp.float32))
    except (TypeError, ValueError):  # a shape that the transform cannot take apart
        return None
    return tuple(part.shape for part in parts)


def _raise_if(problems: Sequence[str], headline: str) -> None:
    if problems:
        raise ValueError("\n  ".join([f"{headline}; {len(problems)} problems:", *problems]))
