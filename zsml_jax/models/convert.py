"""Checkpoints into parameters and parameters into checkpoints, by the rules of a table.

:func:`convert` compares names and shapes with the abstract parameters of the module before it reads a single tensor:
everything that is missing, unexpected or misshapen is reported at once. :func:`revert` goes the other way.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

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
    leaves = _leaves(expected)
    wanted = {
        slot: leaf.shape[slot != path :]
        for path, leaf in leaves.items()
        if not isinstance(leaf, Quantized)
        for slot in slots_of(table, path, leaf)
    }
    plan, problems = _plan(table, tensors, wanted)
    _raise_if(problems, f"{source} does not fit its configuration")
    place = _placement(sharding, leaves)
    params: dict[str, Any] = {}
    for path, leaf in leaves.items():
        slots = slots_of(table, path, leaf)
        stacked = slots != (path,)
        if isinstance(leaf, Quantized):
            kernel = read_stacked([(kernels or {})[slot] for slot in slots], stacked=stacked)
            if not np.isfinite(kernel.scale).all():
                problems.append(f"not finite: the scales of {path}")
            params[path] = _on_device_leaf_by_leaf(kernel, place[path])
            continue
        kept = plan[slots[0]][1].dtype or dtype
        value = np.empty(leaf.shape if stacked else (0,), kept)
        for i, slot in enumerate(slots):
            name, rule, part = plan[slot]
            row, is_finite = _read(tensors[name], rule, part, kept)
            if not is_finite:
                problems.append(f"not finite as {jnp.dtype(kept)}: {name}")
            if stacked:
                value[i] = row
            else:
                value = row
        params[path] = _on_device(value, place[path])
    _raise_if(problems, f"{source} has damaged weights")
    return flax.traverse_util.unflatten_dict(params, sep="/")


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
    leaves = _leaves(params)
    rows: dict[str, Callable[[], Any]] = {}
    sizes: dict[str, int] = {}
    kernels: dict[str, Quantized] = {}
    for path, leaf in leaves.items():
        slots = slots_of(table, path, leaf)
        stacked = slots != (path,)
        for i, slot in enumerate(slots):
            rows[slot] = lambda leaf=leaf, i=i, stacked=stacked: jax.tree.map(
                lambda x: np.asarray(x[i] if stacked else x), leaf
            )
            sizes[slot] = leaf.nbytes // len(slots)
            if isinstance(leaf, Quantized):
                own = lambda x, stacked=stacked: jax.ShapeDtypeStruct(x.shape[stacked:], x.dtype)
                kernels[slot] = jax.tree.map(own, leaf)
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
            quantised = [part for part in parts if part in kernels]
            if quantised and len(quantised) < len(parts):
                problems.append(f"{name} holds {', '.join(parts)}, of which only {', '.join(quantised)} are quantised")
            elif quantised:
                numbers = range(len(parts)) if isinstance(rule.path, tuple) else (None,)
                for number, part in zip(numbers, parts, strict=True):
                    tensors |= tensors_of(name, number, kernels[part], rows[part], layout or "own")
            else:
                read = lambda rule=rule, parts=parts: np.asarray(
                    rule.tensor([rows[part]() for part in parts]), order="C"
                )
                tensors[name] = Outgoing(sum(sizes.get(part, 0) for part in parts), read)
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


def _read(tensor: LazyTensor, rule: Rule, part: int, dtype: jax.typing.DTypeLike) -> tuple[np.ndarray, bool]:
    """One of the parameters that a tensor holds, and whether all of it is finite."""
    with np.errstate(over="ignore"):  # what is too large for the dtype is reported by name
        row = np.asarray(rule.parts(tensor.read())[part]).astype(dtype, copy=False)
    return row, bool(np.isfinite(row).all())


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
