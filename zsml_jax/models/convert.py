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

from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.rules import Rule, Table
from zsml_jax.typing import Array, PyTree

#: Where each parameter goes: one sharding for all, a pytree of them, or a function of the parameter's path.
Placement: TypeAlias = jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding] | PyTree | None


def convert(
    table: Table,
    tensors: Mapping[str, LazyTensor],
    expected: PyTree,
    *,
    dtype: jax.typing.DTypeLike,
    source: str,
    sharding: Placement = None,
) -> dict[str, Any]:
    """Reads a checkpoint into the parameters of a module.

    Args:
      table: the family's rules.
      tensors: the checkpoint.
      expected: the module's parameters, abstract (from :func:`jax.eval_shape`).
      dtype: dtype of the parameters, but for those whose rule names one.
      source: name of the checkpoint, for messages.
      sharding: where each parameter goes; the default device if None. The host holds one parameter at a time.

    Returns:
      The parameters, structured and shaped as ``expected``.

    Raises:
      ValueError: if parameters are missing, unexpected, misshapen or not finite; all of them are listed.
    """
    leaves = _leaves(expected)
    wanted = {slot: leaf.shape[slot != path :] for path, leaf in leaves.items() for slot in slots_of(table, path, leaf)}
    plan, problems = _plan(table, tensors, wanted)
    _raise_if(problems, f"{source} does not fit its configuration")
    place = _placement(sharding, leaves)
    params = {}
    for path, leaf in leaves.items():
        slots = slots_of(table, path, leaf)
        stacked = slots != (path,)
        kept = plan[slots[0]][1].dtype or dtype
        value = np.empty(leaf.shape if stacked else (0,), kept)
        for i, slot in enumerate(slots):
            name, rule, part = plan[slot]
            with np.errstate(over="ignore"):  # reported below, by name
                row = np.asarray(rule.parts(tensors[name].read())[part]).astype(kept, copy=False)
            if not np.isfinite(row).all():
                problems.append(f"not finite as {jnp.dtype(kept)}: {name}")
            if stacked:
                value[i] = row
            else:
                value = row
        params[path] = _on_device(value, place[path])
    _raise_if(problems, f"{source} has damaged weights")
    return flax.traverse_util.unflatten_dict(params, sep="/")


class Outgoing(NamedTuple):
    """A tensor on its way into a file.

    Attributes:
      nbytes: its size.
      read: fetches it from the parameters, in the file's layout.
    """

    nbytes: int
    read: Callable[[], np.ndarray]


def revert(table: Table, params: PyTree) -> dict[str, Outgoing]:
    """Returns the tensors of a checkpoint that holds the parameters of a module: the inverse of :func:`convert`.

    Args:
      table: the family's rules.
      params: the parameters.

    Returns:
      The tensors by name, fetched when they are read.

    Raises:
      ValueError: if a parameter has no name in the file, or a tensor of several parameters lacks one; all are listed.
    """
    leaves = _leaves(params)
    rows: dict[str, Callable[[], np.ndarray]] = {}
    sizes: dict[str, int] = {}
    for path, leaf in leaves.items():
        slots = slots_of(table, path, leaf)
        for i, slot in enumerate(slots):
            rows[slot] = lambda leaf=leaf, i=i, stacked=slots != (path,): np.asarray(leaf[i] if stacked else leaf)
            sizes[slot] = leaf.nbytes // len(slots)
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
            read = lambda rule=rule, parts=parts: np.asarray(rule.tensor([rows[part]() for part in parts]), order="C")
            tensors[name] = Outgoing(sum(sizes.get(part, 0) for part in parts), read)
            for part in parts:
                left.pop(part, None)
    _raise_if(problems, "the parameters do not fit the model's type")
    return tensors


def _leaves(tree: PyTree) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")  # pyrefly: ignore


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
        return {path: sharding(path) for path in leaves}
    if not isinstance(sharding, Mapping):
        raise ValueError(
            "sharding must be a Sharding, a nested dict of them, or a function of a parameter's path, "
            f"got {type(sharding).__name__}"
        )
    given = _leaves(sharding)
    if differing := sorted(set(given) ^ set(leaves)):
        raise ValueError(f"sharding must have the structure of the parameters; they differ at {differing}")
    return given


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
