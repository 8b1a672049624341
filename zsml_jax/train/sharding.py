"""Where arrays lie: meshes from strings, and partitions of parameters by ordered path rules.

Example::

    mesh = make_mesh("data:-1,model:2")
    rules = [
        (".*/(query|up)/kernel", PartitionSpec("data", "model")),   # tensor and fully sharded data parallelism
        (".*/kernel", Fsdp("data")),                                # fully sharded data parallelism alone
        (".*", PartitionSpec()),                                    # a copy on every device
    ]
    state = shard_state(state, mesh, rules)
    batch = shard_batch(batch, mesh)

XLA puts the collectives in. :mod:`.sharding_tables` has such a list for each family of models; ``REPLICATED`` is plain
data parallelism.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from zsml_jax.train import parameter_paths
from zsml_jax.train.state import TrainState
from zsml_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Fsdp:
    """Divides the largest axis of an array that the mesh axis divides; the last one among equals.

    Attributes:
      axis: the mesh axis.
      min_size: arrays of fewer elements are copied to every device, and so are those that cannot be divided.
    """

    axis: str = "data"
    min_size: int = 2**16

    def spec(self, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
        """Returns the partition of an array."""
        devices = mesh.shape[self.axis]
        divisible = [i for i, size in enumerate(shape) if size % devices == 0]
        if math.prod(shape) < self.min_size or not divisible:
            return PartitionSpec()
        chosen = max(divisible, key=lambda i: (shape[i], i))
        return PartitionSpec(*(self.axis if i == chosen else None for i in range(chosen + 1)))


@dataclasses.dataclass(frozen=True)
class FirstFit:
    """The first of several partitions that divides an array evenly, for sizes that a mesh may not divide.

    Attributes:
      specs: the partitions, the best one first. The last is used where none fits, so that the misfit is reported; with
        ``PartitionSpec()`` there, the array is copied to every device instead.
    """

    specs: tuple[PartitionSpec, ...]

    def spec(self, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
        """Returns the partition of an array."""
        return next((spec for spec in self.specs if not _misfits(shape, spec, mesh)), self.specs[-1])


ShardingRule = tuple[str, PartitionSpec | Fsdp | FirstFit]
#: A copy of every parameter on every device.
REPLICATED: Final[tuple[ShardingRule, ...]] = ((".*", PartitionSpec()),)


def make_mesh(axes: str, *, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of named axes.

    Args:
      axes: names and sizes, such as ``"data:-1,model:2"``; one size may be -1, which takes all devices that are left.
      devices: by default all devices of all processes.

    Raises:
      ValueError: if the string cannot be read, or the sizes do not give the number of devices.
    """
    found = list(devices) if devices is not None else jax.devices()
    names, sizes = [], []
    for part in axes.split(","):
        name, colon, size = part.strip().partition(":")
        if not colon or not name.isidentifier() or not size.strip().lstrip("-").isdigit():
            raise ValueError(f"axes must read as 'data:-1,model:2', got {axes!r}")
        names.append(name)
        sizes.append(int(size))
    if len(set(names)) != len(names) or sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise ValueError(f"axes must have different names and positive sizes, one of them -1 at most, got {axes!r}")
    known = math.prod(size for size in sizes if size != -1)
    if (len(found) % known) if -1 in sizes else (len(found) != known):
        raise ValueError(f"axes must divide the {len(found)} devices among them, got {axes!r}")
    shape = tuple(len(found) // known if size == -1 else size for size in sizes)
    # Auto: Flax's modules know nothing of explicit sharding, which is JAX's default.
    kinds = (AxisType.Auto,) * len(shape)
    return jax.make_mesh(shape, tuple(names), axis_types=kinds, devices=found)


def partition(params: PyTree, mesh: Mesh | AbstractMesh, rules: Sequence[ShardingRule]) -> PyTree:
    """Returns the NamedSharding of every parameter by the first rule that matches its whole path.

    Args:
      params: concrete or abstract parameters.
      mesh: the mesh.
      rules: pairs of a regular expression and a PartitionSpec, :class:`Fsdp` or :class:`FirstFit`.

    Raises:
      ValueError: if a parameter has no rule, a rule names an axis that the mesh has not, or names more axes than the
        array has, or an axis of an array is not divisible; all parameters that do not fit are named.
    """
    for pattern, rule in rules:
        unknown = _axes(rule) - set(mesh.axis_names)
        if unknown:
            raise ValueError(f"rules must use the mesh's axes {mesh.axis_names}; {pattern!r} names {sorted(unknown)}")
    matched = jax.tree.leaves(parameter_paths.match(rules, params))
    leaves, structure = jax.tree.flatten(params)
    problems, shardings = [], []
    for path, leaf, number in zip(parameter_paths.paths(params), leaves, matched, strict=True):
        rule = rules[number][1]
        spec = rule if isinstance(rule, PartitionSpec) else rule.spec(leaf.shape, mesh)
        problems += [f"{path} {leaf.shape} by {spec}: {problem}" for problem in _misfits(leaf.shape, spec, mesh)]
        shardings.append(NamedSharding(mesh, spec))
    if problems:
        raise ValueError("rules must fit the parameters' shapes:\n  " + "\n  ".join(problems))
    return jax.tree.unflatten(structure, shardings)


def state_shardings(state: TrainState, mesh: Mesh | AbstractMesh, rules: Sequence[ShardingRule]) -> TrainState:
    """Returns the shardings of a whole training state, concrete or abstract.

    An array of the optimizer or of the average lies as the parameter whose path its own path ends in, if it has its
    shape; everything else is copied to every device.
    """
    params = partition(state.params, mesh, rules)
    everywhere = NamedSharding(mesh, PartitionSpec())
    known = {
        path: (leaf.shape, sharding)
        for path, leaf, sharding in zip(
            parameter_paths.paths(params), jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True
        )
    }

    def like_its_parameter(key_path: tuple, leaf: Any) -> NamedSharding:
        entries = parameter_paths.path_of(key_path).split("/")
        for start in range(len(entries)):
            shape, sharding = known.get("/".join(entries[start:]), (None, everywhere))
            if shape == leaf.shape:
                return sharding
        return everywhere

    rest = jax.tree_util.tree_map_with_path(like_its_parameter, dataclasses.replace(state, params=None))
    return dataclasses.replace(rest, params=params)


def shard(tree: PyTree, shardings: PyTree) -> PyTree:
    """Returns the tree on its devices; every process must hold the whole arrays, or arrays that are global already."""

    def place(x: Any, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable or (isinstance(x, jax.Array) and not x.is_fully_addressable):
            return jax.device_put(x, sharding)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            words = place(jax.random.key_data(x), sharding)
            return jax.jit(lambda words: jax.random.wrap_key_data(words, impl=jax.random.key_impl(x)))(words)
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, tree, shardings)


def shard_state(state: TrainState, mesh: Mesh | AbstractMesh, rules: Sequence[ShardingRule]) -> TrainState:
    """Returns the state on the devices of a mesh; :func:`state_shardings` says how."""
    return shard(state, state_shardings(state, mesh, rules))


def shard_batch(batch: PyTree, mesh: Mesh, *, axes: str | tuple[str, ...] = "data") -> PyTree:
    """Makes global arrays of each process's examples.

    Args:
      batch: this process's examples, along the first axis of each array.
      mesh: the mesh.
      axes: the mesh axis, or axes, that divide the examples.

    Raises:
      ValueError: if the axes are not the mesh's, or do not divide the examples.
    """
    names = (axes,) if isinstance(axes, str) else axes
    unknown = set(names) - set(mesh.axis_names)
    if unknown:
        raise ValueError(f"axes must be among the mesh's {mesh.axis_names}, got {sorted(unknown)}")
    sharding = NamedSharding(mesh, PartitionSpec(names))
    parts = math.prod(mesh.shape[name] for name in names)

    def place(x: Any) -> jax.Array:
        x = np.asarray(x)
        examples = x.shape[0] * jax.process_count() if x.ndim else 0
        if examples == 0 or examples % parts:
            raise ValueError(f"batch must have examples that {parts} parts of {names} divide, got shape {x.shape}")
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(place, batch)


def abstract(tree: PyTree, shardings: PyTree | None = None) -> PyTree:
    """Returns the shapes, dtypes and shardings of a tree, to restore into or to lower a step with.

    Args:
      tree: concrete arrays, or abstract ones where ``shardings`` are given.
      shardings: by default those of the arrays.
    """
    shardings = jax.tree.map(lambda x: x.sharding, tree) if shardings is None else shardings
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def pmap_step(step: Callable[..., Any], *, axis_name: str = "data") -> Callable[..., Any]:
    """Wraps a step for code written for ``jax.pmap``, which JAX keeps in maintenance mode.

    The step sees one device's part of the batch and averages over ``axis_name`` itself (``jax.lax.pmean``). New code
    jits :func:`zsml_jax.train.step.make_step` over arrays that :func:`shard_state` and :func:`shard_batch` have placed.

    Args:
      step: a function from state and batch to state and metrics.
      axis_name: name of the axis of devices.

    Returns:
      The function over states and batches with a leading axis of this process's devices; the state is donated.
    """
    return jax.pmap(step, axis_name=axis_name, donate_argnums=(0,))


def _axes(rule: PartitionSpec | Fsdp | FirstFit) -> set[str]:
    if isinstance(rule, Fsdp):
        return {rule.axis}
    if isinstance(rule, FirstFit):
        return set().union(*map(_axes, rule.specs))
    return {name for entry in rule if entry is not None for name in ((entry,) if isinstance(entry, str) else entry)}


def _misfits(shape: Sequence[int], spec: PartitionSpec, mesh: Mesh | AbstractMesh) -> list[str]:
    if len(spec) > len(shape):
        return [f"names {len(spec)} axes of {len(shape)}"]
    problems = []
    for size, entry in zip(shape, spec, strict=False):
        names = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        parts = math.prod(mesh.shape[name] for name in names)
        if size % parts:
            problems.append(f"{size} is not divisible by the {parts} devices of {' and '.join(names)}")
    return problems
