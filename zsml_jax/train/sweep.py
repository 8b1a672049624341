r"""Studies over hyperparameters and seeds: all trials of a program in one compiled call.

:func:`run` trains every point of a study from its own key, ``fold_in(key, trial)``. Points that share their static
fields form a group, and each group is one program, whose traced hyperparameters are arguments: nothing is compiled
again for another learning rate. A trial is a pure function::

    def train(key, hyperparameters, x, y, *, width):      # traced fields in a dict, static ones as keywords
        ...
        return {"params": params, "loss": loss}

    points = product(grid(static=["width"], width=[16, 32]), sample(key, 32, learning_rate=log_uniform(1e-4, 1e-1)))
    study = sweep.run(train, points, key=key, seeds=3, args=(x, y))
    study.best("loss").fields

To go on with a study, for a resumed run or a further rung of :mod:`.halving`, let ``train`` return a state and give
:func:`advance` a function that takes it one step further.

Trials know nothing of each other: one that diverges leaves the others alone, and ``study.finite`` marks it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Int

from zsml_jax.train.points import Points
from zsml_jax.train.study import Group, Study
from zsml_jax.typing import Array, Key, PyTree

#: ``vmap`` does all trials at once; ``map`` does ``batch_size`` at a time, in one program, for studies that would not
#: fit into memory; ``serial`` calls one program for each trial, and shows what a single trial would do.
Mode = Literal["vmap", "map", "serial"]
#: ``train(key, hyperparameters, *args, **static) -> output``.
Train = Callable[..., PyTree]
#: ``step(key, hyperparameters, output, *args, **static) -> output``, of the same structure, shapes and dtypes.
Step = Callable[..., PyTree]

_AXIS = "trial"


def run(
    train: Train,
    points: Points,
    *,
    key: Key,
    seeds: int = 1,
    mode: Mode = "vmap",
    args: Sequence[PyTree] = (),
    batch_size: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Study:
    """Trains all trials: each point with each seed.

    Args:
      train: a pure function ``train(key, hyperparameters, *args, **static)`` that returns a pytree of arrays.
        ``hyperparameters`` are the point's traced fields, rank-0 arrays by name; static fields are keywords.
      points: the hyperparameters.
      key: the study's key; trial t gets ``fold_in(key, t)``, whatever the mode, the grouping and the devices.
      seeds: trials for each point; trial ``point * seeds + seed`` is a point's repeat.
      mode: how the trials are run, see :data:`Mode`. The results are the same up to rounding.
      args: arrays that all trials share, such as the data. They are arguments of the program, not constants in it.
      batch_size: trials at a time on each device, in the mode ``map``.
      devices: over which the trial axis is sharded, by default all; a number of trials that they do not divide is
        padded with repeats of the last. ``serial`` uses the first one.

    Returns:
      The study: stacked outputs, one group for each static configuration.

    Raises:
      ValueError: if ``seeds``, ``mode``, ``batch_size`` or ``devices`` is not as above, or ``key`` is not a typed key.
    """
    call = _Call(mode, batch_size, devices)
    groups = [
        call(_Program(train, static), key, trials, traced, (), args, None)
        for static, trials, traced in _plan(points, key, seeds)
    ]
    return Study(key, tuple(groups), seeds)


def advance(
    step: Step,
    study: Study,
    *,
    repeat: int = 1,
    mode: Mode = "vmap",
    args: Sequence[PyTree] = (),
    batch_size: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Study:
    """Takes all trials of a study some steps further.

    A step gets the trial's key of :func:`run` each time. One that needs fresh randomness counts its steps in the state
    and folds the count in; then 3 steps and 5 more are bit for bit the 8 that an uninterrupted run does.

    Args:
      step: a pure function ``step(key, hyperparameters, output, *args, **static)`` that returns the next output.
      study: from :func:`run`, :func:`advance`, or a checkpoint of them (see :func:`abstract`).
      repeat: how many steps; it is traced, so another number compiles nothing.
      mode: as in :func:`run`; so are the other arguments.
      args: shared arrays.
      batch_size: trials at a time.
      devices: of the trial axis.

    Returns:
      The study with new outputs.

    Raises:
      ValueError: if ``repeat`` is negative, or as :func:`run`.
    """
    if repeat < 0:
        raise ValueError(f"repeat must not be negative, got {repeat}")
    call = _Call(mode, batch_size, devices)
    groups = [
        call(
            _Program(step, group.static, True),
            study.key,
            group.trials,
            group.hyperparameters,
            group.output,
            args,
            repeat,
        )
        for group in study.groups
    ]
    return Study(study.key, tuple(groups), study.seeds)


def abstract(
    train: Train,
    points: Points,
    *,
    key: Key,
    seeds: int = 1,
    args: Sequence[PyTree] = (),
    trials: Sequence[int] | Int[np.ndarray, " m"] | None = None,
) -> Study:
    """Returns the shapes of what :func:`run` would return, to restore a checkpoint into; nothing is computed.

    Example::

        checkpoint.save(path, study)                                      # before the machine went away
        like = sweep.abstract(train, points, key=key, args=args)          # after
        study = sweep.advance(step, checkpoint.restore(path, like), args=args)

    Args:
      train: as in :func:`run`, like the arguments that follow.
      points: the hyperparameters.
      key: the study's key.
      seeds: trials for each point.
      args: shared arrays.
      trials: the numbers of the trials that are left, of a study after :meth:`.Study.take`; all if None.

    Raises:
      ValueError: as :func:`run`.
    """
    groups = []
    for static, numbers, traced in _plan(points, key, seeds):
        (left,) = np.nonzero(np.ones_like(numbers) if trials is None else np.isin(numbers, np.asarray(trials)))
        if not len(left):
            continue
        shapes = jax.eval_shape(_Program(train, static), key, numbers[0], _row(traced, 0), (), args, None)
        stacked = jax.tree.map(lambda x, n=left.size: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), shapes)
        numbers, traced = jax.eval_shape(lambda *x: x, numbers[left], {name: v[left] for name, v in traced.items()})
        groups.append(Group(static, numbers, traced, stacked))
    return Study(jax.eval_shape(lambda: key), tuple(groups), seeds)


@dataclasses.dataclass(frozen=True)
class _Program:
    """What one trial does; equal to others of the same function and static fields, so that jit finds it again.

    Attributes:
      function: a :data:`Train` or a :data:`Step`.
      static: its static fields.
      goes_on: whether it is a step, to be repeated from the state, or begins afresh.
    """

    function: Callable[..., PyTree]
    static: tuple[tuple[str, Any], ...]
    goes_on: bool = False

    def __call__(
        self, key: Key, trial: Array, traced: Mapping[str, Array], state: PyTree, args: Sequence[PyTree], repeat: Any
    ) -> PyTree:
        trial_key, static = jax.random.fold_in(key, trial), dict(self.static)
        if not self.goes_on:
            return jax.tree.map(jnp.asarray, self.function(trial_key, traced, *args, **static))
        once = lambda _, state: self.function(trial_key, traced, state, *args, **static)
        return jax.lax.fori_loop(0, repeat, once, state)


class _Call:
    """How a group's trials are run: checked arguments, and the call."""

    def __init__(self, mode: Mode, batch_size: int, devices: Sequence[jax.Device] | None):
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, got {mode!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.devices = jax.devices() if devices is None else list(devices)
        if not self.devices:
            raise ValueError("devices must name at least one device, got none")
        self.mode, self.batch_size = mode, batch_size

    def __call__(
        self,
        program: _Program,
        key: Key,
        trials: Any,
        traced: Mapping[str, Any],
        state: PyTree,
        args: Sequence[PyTree],
        repeat: int | None,
    ) -> Group:
        n = len(trials)
        used = self.devices[:1] if self.mode == "serial" else self.devices[:n]
        mesh = jax.make_mesh((len(used),), (_AXIS,), axis_types=(AxisType.Auto,), devices=used)
        whole = NamedSharding(mesh, PartitionSpec())
        # An uneven axis cannot be laid out over devices before it is padded, inside the program.
        split = whole if n % len(used) else NamedSharding(mesh, PartitionSpec(_AXIS))
        trials, traced, state = jax.device_put((trials, dict(traced), state), split)
        shared = jax.device_put((key, tuple(args), None if repeat is None else np.int32(repeat)), whole)
        if self.mode == "serial":
            outputs = [_one(program, *_row((trials, traced, state), i), *shared) for i in range(n)]
            output = jax.tree.map(lambda *rows: jnp.stack(rows), *outputs)
        else:
            batch_size = self.batch_size if self.mode == "map" else None
            output = _stacked(program, mesh, batch_size, trials, traced, state, *shared)
        return Group(program.static, trials, traced, output)


@functools.partial(jax.jit, static_argnums=0)
def _one(program: _Program, trial: Array, traced: PyTree, state: PyTree, key: Key, args: PyTree, repeat: Any) -> PyTree:
    return program(key, trial, traced, state, args, repeat)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _stacked(
    program: _Program,
    mesh: jax.sharding.Mesh,
    batch_size: int | None,
    trials: Array,
    traced: PyTree,
    state: PyTree,
    key: Key,
    args: PyTree,
    repeat: Any,
) -> PyTree:
    """All trials of a group: each device vmaps or maps over its own, without a word to the others."""

    def local(rows: PyTree, shared: tuple) -> PyTree:
        key, args, repeat = shared
        one = lambda row: program(key, row[0], row[1], row[2], args, repeat)
        if batch_size is None:
            return jax.vmap(one)(rows)
        # A batch of one would still go through vmap, which turns a branch into the work of both its sides.
        return jax.lax.map(one, rows, batch_size=None if batch_size == 1 else batch_size)

    n = len(trials)
    padded = np.minimum(np.arange(-(-n // mesh.size) * mesh.size), n - 1)
    rows = (trials, traced, state) if len(padded) == n else jax.tree.map(lambda x: x[padded], (trials, traced, state))
    spread = PartitionSpec(_AXIS)
    # Trials begin from constants that do not vary over the mesh; the check would want them marked in the user's code.
    everywhere = jax.shard_map(local, mesh=mesh, in_specs=(spread, PartitionSpec()), out_specs=spread, check_vma=False)
    output = everywhere(rows, (key, args, repeat))
    return output if len(padded) == n else jax.tree.map(lambda x: x[:n], output)


def _plan(points: Points, key: Key, seeds: int) -> list[tuple[tuple[tuple[str, Any], ...], np.ndarray, dict]]:
    """Returns, for each static configuration, its fields, trials and stacked traced fields."""
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    if not jnp.issubdtype(getattr(key, "dtype", np.void), jax.dtypes.prng_key) or key.shape:
        raise ValueError(f"key must be one typed key, as jax.random.key gives it, got {key!r}")
    members: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for i, point in enumerate(points):
        members.setdefault(tuple(sorted(point.static.items())), []).append(i)
    # One dtype for all points of a field, also where some of its values are whole.
    columns = {name: np.asarray(jnp.asarray([p.traced[name] for p in points])) for name in points[0].traced}
    plan = []
    for static, group in members.items():
        trials = (np.repeat(group, seeds) * seeds + np.tile(np.arange(seeds), len(group))).astype(np.int32)
        plan.append((static, trials, {name: column[trials // seeds] for name, column in columns.items()}))
    return plan


def _row(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)
