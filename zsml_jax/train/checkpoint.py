"""Checkpoints: one fitted pytree with :func:`save` and :func:`restore`, or a run's steps with :class:`Checkpointer`.

Everything that touches Orbax (its v1 interface, whose recursive annotations type checkers misread) is in this file.
Beside the arrays, each checkpoint holds a manifest of its leaves (:mod:`.manifest`) and the JSON of its config, so that
a wrong structure is told before a byte is read.
"""

import dataclasses
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from zsml_jax.report.records import jsonable
from zsml_jax.train import manifest as manifests
from zsml_jax.train.manifest import Entry, Leaf
from zsml_jax.typing import PyTree

_FORMAT = "zsml_jax-1"
#: Stands in the array store of a checkpoint without arrays, since Orbax refuses an empty one.
_NO_ARRAYS = {"nothing": np.zeros(1, np.uint8)}
#: The stored key path of a tree that is a single leaf.
_ROOT = ("leaf",)


class Preempted(SystemExit):
    """Leaves a run that was told to stop, after its last checkpoint is safe; the exit status is 143, as for SIGTERM."""

    def __init__(self, step: int):
        super().__init__(128 + signal.SIGTERM)
        self.step = step

    def __str__(self) -> str:
        return f"told to stop; step {self.step} is saved"


def save(path: str | os.PathLike, tree: PyTree, config: Any = None) -> None:
    """Saves a pytree and its config as one checkpoint, replacing an earlier checkpoint only when it is whole.

    Args:
      path: the checkpoint's folder.
      tree: nested dicts, sequences, named tuples, flax.struct or other registered nodes of JAX and numpy arrays,
        typed PRNG keys, numbers, strings and ``None``.
      config: a dataclass or a mapping that JSON can hold.

    Raises:
      ValueError: if the tree holds something else, or ``path`` is there and is not a checkpoint.
    """
    path = _absolute(path)
    arrays, metadata = _pack(tree, config)
    fresh, previous = _beside(path, "new"), _beside(path, "previous")
    if jax.process_index() == 0:
        _recover(path)
        if path.exists() and not _is_orbax(path):
            raise ValueError(f"path must be free or an earlier checkpoint; {path} is something else")
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f"{fresh.name}*"):
            leftover.rmtree()
    _sync("clean", path)
    ocp.save(fresh, arrays, custom_metadata=metadata)  # pyrefly: ignore[bad-argument-type]
    if jax.process_index() == 0:
        if path.exists():
            path.rename(previous)
        fresh.rename(path)
        previous.rmtree(missing_ok=True)
    _sync("saved", path)


def restore(path: str | os.PathLike, like: PyTree | None = None, *, subtree: str | None = None) -> PyTree:
    """Restores a checkpoint, or the part of it under a key path.

    Without ``like``, named tuples and dataclasses come back as dicts and tuples as lists; JAX arrays go to the
    default device, except that those wider than JAX's enabled precision come back as numpy arrays, unchanged.

    Args:
      path: the checkpoint's folder.
      like: a tree of the structure to restore, concrete or abstract (``jax.ShapeDtypeStruct``). Its arrays' shapes
        and dtypes must be those saved; numpy leaves come back as numpy arrays, others as JAX arrays with the
        sharding of the leaf, where it has one.
      subtree: a key path such as ``"params/encoder"``; ``like`` then describes that part only.

    Returns:
      The tree.

    Raises:
      FileNotFoundError: if there is nothing at ``path``.
      ValueError: if it is not a checkpoint, has no such subtree, or does not agree with ``like``; all key paths that
        disagree are named.
    """
    path = _recover(_absolute(path))
    saved = manifests.from_json(_metadata(path)["leaves"])
    depth = 0 if subtree is None else _depth(saved, subtree, path)
    wanted = [leaf for leaf in saved if subtree is None or _is_under(leaf, subtree)]
    targets: Sequence[Any] = [None] * len(wanted)
    if like is not None:
        parts = {leaf.path[depth:]: leaf for leaf in wanted}
        wanted = [parts[leaf.path] for leaf in manifests.match([_cut(leaf, depth) for leaf in wanted], like)]
        targets = manifests.leaves(like)
    pairs = list(zip(wanted, targets, strict=True))
    loaded = _load(path, saved, {leaf.path: _target(leaf, target) for leaf, target in pairs if leaf.stored})
    values = [_unpack(leaf, loaded, target) for leaf, target in pairs]
    if like is not None:
        return manifests.rebuild(like, values)
    return manifests.nest((leaf.path[depth:], value) for leaf, value in zip(wanted, values, strict=True))


def config(path: str | os.PathLike) -> Any:
    """Returns the config saved with a checkpoint, as JSON values; ``None`` if there was none."""
    return _metadata(_recover(_absolute(path)))["config"]


class Checkpointer:
    """The checkpoints of a run: numbered by step, written in the background, the newest few kept.

    A step is saved when it is a multiple of ``every``, when asked for with ``force``, and when the run is told to
    stop: by the cluster, where ``jax.distributed`` is initialised, otherwise by SIGTERM. In that case :meth:`save`
    waits until the checkpoint is safe and raises :class:`Preempted`, which ends the program.

    Example::

        with checkpoint.Checkpointer(folder, every=100) as checkpoints:
            start = 0
            if checkpoints.latest_step is not None:
                state, start = checkpoints.restore(like=state), checkpoints.latest_step
            for step in range(start + 1, steps + 1):
                state = update(state)
                checkpoints.save(step, state)

    Args:
      folder: where the steps lie, made if missing.
      every: the number of steps between two checkpoints.
      keep: how many of the newest checkpoints stay.
      config: a dataclass or a mapping, saved as JSON with each step.

    Raises:
      ValueError: if ``every`` or ``keep`` is not positive.
    """

    def __init__(self, folder: str | os.PathLike, *, every: int = 1, keep: int = 3, config: Any = None):
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.folder = _absolute(folder)
        self._config = jsonable(config)
        policies = ocp.training.save_decision_policies
        self._orbax = ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=policies.AnySavePolicy(  # pyrefly: ignore[bad-argument-type]
                [policies.FixedIntervalPolicy(every), policies.PreemptionCheckpointingPolicy()]
            ),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyrefly: ignore[bad-argument-type]
            cleanup_tmp_directories=True,
        )
        self._told_to_stop = threading.Event()
        self._previous_handler: Any = None
        # Where jax.distributed runs, its own notifier takes the signal and agrees on a step with the other processes.
        self._listens = not jax.distributed.is_initialized() and threading.current_thread() is threading.main_thread()
        if self._listens:
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_signal)

    @property
    def steps(self) -> list[int]:
        """The steps that can be restored, in ascending order."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    @property
    def latest_step(self) -> int | None:
        """The newest step, or ``None`` before the first."""
        return max(self.steps, default=None)

    def save(self, step: int, tree: PyTree, *, force: bool = False) -> bool:
        """Saves a step in the background if it is due; the caller may change or donate its arrays at once.

        Args:
          step: the number of steps done; in a multi-process run every process calls this at every step.
          tree: as in :func:`save`.
          force: save even between two multiples of ``every``.

        Returns:
          Whether a save was started. A step not above the newest one is not saved again.

        Raises:
          Preempted: after the step is safe, if the run was told to stop.
          ValueError: if the tree cannot be saved, or ``step`` is negative.
        """
        return self.save_lazily(step, lambda: tree, force=force)

    def save_lazily(self, step: int, make_tree: Callable[[], PyTree], *, force: bool = False) -> bool:
        """Does what :meth:`save` does, with a tree that is made only if the step is saved.

        Args:
          step: as in :meth:`save`.
          make_tree: returns the tree; what it raises ends the save before anything is written.
          force: as in :meth:`save`.

        Returns:
          As :meth:`save`.
        """
        if step < 0:
            raise ValueError(f"step must not be negative, got {step}")
        preempted = self._told_to_stop.is_set() or multihost_utils.reached_preemption_sync_point(step)
        new = self.latest_step is None or step > self.latest_step
        started = False
        if new and (force or preempted or self._orbax.should_save(step)):
            arrays, metadata = _pack(make_tree(), self._config)
            response = self._orbax.save_async(step, arrays, force=True, custom_metadata=metadata)  # pyrefly: ignore[bad-argument-type]
            started = response is not None
        if preempted:
            self.wait()
            raise Preempted(step)
        return started

    def restore(self, step: int | None = None, like: PyTree | None = None, *, subtree: str | None = None) -> PyTree:
        """Restores a step, the newest one by default; otherwise as :func:`restore`.

        Raises:
          FileNotFoundError: if there is no such step.
        """
        return restore(self._path(step), like, subtree=subtree)

    def config(self, step: int | None = None) -> Any:
        """Returns the config saved with a step, the newest one by default, as JSON values."""
        return config(self._path(step))

    def wait(self) -> None:
        """Waits until all started saves are safe; raises what went wrong in them."""
        self._orbax.wait()

    def close(self) -> None:
        """Waits, and gives SIGTERM back to whoever had it."""
        try:
            self._orbax.wait()
        finally:
            if self._listens:
                signal.signal(signal.SIGTERM, self._previous_handler or signal.SIG_DFL)
                self._listens = False
            self._orbax.close()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told_to_stop.set()

    def _path(self, step: int | None) -> epath.Path:
        self.wait()
        step = self.latest_step if step is None else step
        if step not in self.steps:
            have = f"it holds steps {self.steps}" if self.steps else "it holds none"
            raise FileNotFoundError(
                f"{self.folder} has no checkpoint{'' if step is None else f' of step {step}'}; {have}"
            )
        return self.folder / str(step)


def _pack(tree: PyTree, config: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a tree into what Orbax stores as arrays and what goes to the JSON."""
    leaves = manifests.describe(tree)
    arrays: dict[str, Any] = {}
    names: dict[str, Leaf] = {}
    for leaf, value in zip(leaves, manifests.leaves(tree), strict=True):
        if not leaf.stored:
            continue
        # Orbax names its files by the joined key path and would write two leaves of one name over one another.
        other = names.setdefault(".".join(map(str, leaf.path)), leaf)
        if other is not leaf:
            raise ValueError(f"tree has two leaves of one stored name: {other.path} and {leaf.path}; rename a key")
        _put(arrays, leaf.path, _stored_array(leaf, value))
    metadata = {"format": _FORMAT, "config": jsonable(config), "leaves": manifests.to_json(leaves)}
    return arrays or _NO_ARRAYS, metadata


def _stored_array(leaf: Leaf, value: Any) -> Any:
    match leaf.kind:
        case "key":
            return jax.random.key_data(value)
        case "scalar":
            return np.asarray(value)
        case _:
            return value


def _put(node: dict[str, Any], path: Sequence[Entry], value: Any) -> None:
    *parents, last = map(str, path or _ROOT)
    for entry in parents:
        node = node.setdefault(entry, {})
    node[last] = value


def _load(path: epath.Path, leaves: Sequence[Leaf], targets: Mapping[tuple[Entry, ...], Any]) -> Any:
    """Reads the arrays of ``targets``, and no others, as nested dicts."""
    abstract: dict[str, Any] = {}
    for leaf in leaves:
        if leaf.stored:
            _put(abstract, leaf.path, targets.get(leaf.path, ocp.PLACEHOLDER))
    return ocp.load(path, abstract) if targets else {}  # pyrefly: ignore[bad-argument-type]


def _target(leaf: Leaf, like: Any) -> Any:
    """The abstract array that a leaf is read into."""
    if leaf.kind == "key":
        words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=leaf.dtype))).shape
        sharding = getattr(like, "sharding", None) or _default_sharding()
        return jax.ShapeDtypeStruct((*leaf.shape, *words), jnp.uint32, sharding=sharding)
    as_numpy = isinstance(like, np.ndarray | np.generic) or (like is None and leaf.kind != "jax")
    if as_numpy or leaf.is_wide:
        return np.empty(leaf.shape, leaf.dtype)
    sharding = getattr(like, "sharding", None) or _default_sharding()
    return jax.ShapeDtypeStruct(leaf.shape, np.dtype(leaf.dtype), sharding=sharding)


def _unpack(leaf: Leaf, loaded: Any, like: Any) -> Any:
    """Makes the leaf that was saved from its array in the nested dicts that :func:`_load` read."""
    if leaf.kind == "value":
        return leaf.value
    if leaf.kind == "empty":
        return manifests.empty_container(leaf) if like is None else like
    target = _target(leaf, like)
    if not leaf.stored:
        return target if isinstance(target, np.ndarray) else jnp.empty(leaf.shape, leaf.dtype, device=target.sharding)
    for entry in leaf.path or _ROOT:
        loaded = loaded[str(entry)]
    if leaf.kind == "key":
        return jax.random.wrap_key_data(loaded, impl=leaf.dtype)
    return loaded[()] if leaf.kind == "scalar" and isinstance(loaded, np.ndarray) else loaded


def _is_under(leaf: Leaf, subtree: str) -> bool:
    return f"{leaf.name}/".startswith(f"{subtree}/")


def _depth(leaves: Sequence[Leaf], subtree: str, path: epath.Path) -> int:
    """The number of entries of a key path that ``subtree`` covers."""
    for leaf in leaves:
        for depth in range(1, len(leaf.path) + 1):
            if "/".join(map(str, leaf.path[:depth])) == subtree:
                return depth
    raise ValueError(f"subtree must be a key path of the checkpoint {path}, got {subtree!r}")


def _cut(leaf: Leaf, depth: int) -> Leaf:
    return dataclasses.replace(leaf, path=leaf.path[depth:])


def _default_sharding() -> jax.sharding.Sharding:
    return jnp.zeros(()).sharding


def _metadata(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    metadata = ocp.metadata(path).custom_metadata if _is_orbax(path) else None
    if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
        raise ValueError(f"path must be a checkpoint written by zsml_jax (format {_FORMAT}); {path} is not")
    return metadata


def _absolute(path: str | os.PathLike) -> epath.Path:
    path = epath.Path(path).expanduser()
    return path if path.is_absolute() else epath.Path(os.getcwd()) / path


def _is_orbax(path: epath.Path) -> bool:
    # ocp.is_orbax_checkpoint says yes to any folder, since Orbax v0 marked its checkpoints by nothing.
    return (path / "_CHECKPOINT_METADATA").is_file()


def _beside(path: epath.Path, what: str) -> epath.Path:
    return path.with_name(f".{path.name}.{what}")


def _recover(path: epath.Path) -> epath.Path:
    """Puts the earlier checkpoint back if a save was killed between taking it away and bringing the new one."""
    previous = _beside(path, "previous")
    if jax.process_index() == 0 and previous.exists():
        if path.exists():
            previous.rmtree()
        else:
            previous.rename(path)
    return path


def _sync(what: str, path: epath.Path) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"zsml_jax checkpoint {what} {path}")
