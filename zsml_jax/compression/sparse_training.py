"""Training that keeps weights at zero, and pruning step by step while training.

Both wrap an optimizer and go into :func:`zsml_jax.train.fit`; the masks are part of its state, so that a checkpoint
has them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.compression.masks import check_sparsity
from zsml_jax.compression.selection import LARGEST, order_bits, smallest
from zsml_jax.train import parameter_paths
from zsml_jax.train.optimizer import PathOptimizer
from zsml_jax.typing import AnyArray, Array, PyTree


class MaskedState(NamedTuple):
    """The state of an optimizer that keeps weights at zero.

    Attributes:
      optimizer: the wrapped optimizer's state.
      masks: by path, True where a weight is kept.
      count: steps done.
    """

    optimizer: PyTree
    masks: dict[str, Array]
    count: Array


class Gradual(NamedTuple):
    r"""The schedule of Zhu and Gupta, "To prune, or not to prune", 2018, equation 1.

    .. math:: s_t = s_f + (s_i - s_f) \Bigl(1 - \frac{t - t_0}{n \Delta t}\Bigr)^3

    Attributes:
      final: the last sparsity :math:`s_f`.
      steps: n, how often the sparsity rises after the first time.
      every: training steps :math:`\Delta t` between two rises.
      begin: the training step :math:`t_0` after which weights are pruned for the first time, counted from 1.
      initial: the first sparsity :math:`s_i`.
    """

    final: float
    steps: int
    every: int
    begin: int = 1
    initial: float = 0.0

    def sparsities(self) -> np.ndarray:
        """Returns the sparsity of each rise, ``(n + 1,)``.

        >>> Gradual(final=0.8, steps=2, every=100).sparsities().round(3).tolist()
        [0.0, 0.7, 0.8]
        """
        left = 1 - np.arange(self.steps + 1) / self.steps
        return self.final + (self.initial - self.final) * left**3


def keep_masks(optimizer: Any, masks: Mapping[str, AnyArray]) -> PathOptimizer:
    """Returns the optimizer with removed weights held at exactly zero, whatever gradients, momenta and decay want.

    Args:
      optimizer: of :mod:`zsml_jax.train.optimizer`, or any of optax.
      masks: of :class:`~zsml_jax.compression.Pruned`.

    Returns:
      The optimizer. Its ``init`` raises a ValueError for a mask whose path is unknown or whose shape differs.
    """

    def init(params: PyTree) -> MaskedState:
        _check(masks, params)
        # Copies, since a state is donated and the caller may use the masks again.
        copies = {path: jnp.array(mask, bool) for path, mask in masks.items()}
        return MaskedState(optimizer.init(params), copies, jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: MaskedState, params: PyTree) -> tuple[PyTree, MaskedState]:
        updates, inner = optimizer.update(updates, state.optimizer, params)
        return _held(updates, params, state.masks), MaskedState(inner, state.masks, state.count + 1)

    return PathOptimizer(init, update, _frozen_of(optimizer))


def prune_gradually(optimizer: Any, schedule: Gradual, paths: Sequence[str]) -> PathOptimizer:
    """Returns the optimizer with global magnitude pruning at the steps of a schedule; what is removed stays removed.

    Args:
      optimizer: of :mod:`zsml_jax.train.optimizer`, or any of optax.
      schedule: when to remove how much.
      paths: the kernels, such as a group; they must be trained.

    Returns:
      The optimizer; the masks are in its state. Its ``init`` raises a ValueError for a path that is not trained.

    Raises:
      ValueError: if the schedule is out of range or falls.
    """
    check_sparsity(schedule.final)
    if not 0 <= schedule.initial <= schedule.final:
        raise ValueError(f"initial must lie in 0 ... {schedule.final}, the final sparsity, got {schedule.initial}")
    for name in ("steps", "every", "begin"):
        if getattr(schedule, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(schedule, name)}")

    def init(params: PyTree) -> MaskedState:
        leaves = _by_path(params)
        if missing := [path for path in paths if path not in leaves]:
            raise ValueError(f"paths must be those of trained parameters; {missing} are not")
        if sum(leaves[path].size for path in paths) > LARGEST:
            raise ValueError(f"paths must have at most {LARGEST} weights to be compared together")
        masks = {path: jnp.ones(leaves[path].shape, bool) for path in paths}
        return MaskedState(optimizer.init(params), masks, jnp.zeros((), jnp.int32))

    def update(updates: PyTree, state: MaskedState, params: PyTree) -> tuple[PyTree, MaskedState]:
        updates, inner = optimizer.update(updates, state.optimizer, params)
        step = state.count + 1
        before, moves = _by_path(params), _by_path(updates)
        after = {path: before[path] + moves[path] for path in state.masks}
        total = sum(weights.size for weights in after.values())
        counts = np.array([round(s * total) for s in schedule.sparsities().tolist()], np.uint32)
        rise, rest = jnp.divmod(step - schedule.begin, schedule.every)
        is_due = (rest == 0) & (rise >= 0) & (rise <= schedule.steps)
        count = jnp.asarray(counts)[jnp.clip(rise, 0, schedule.steps)]
        masks = jax.lax.cond(is_due, lambda: _tightened(after, state.masks, count), lambda: state.masks)
        return _held(updates, params, masks), MaskedState(inner, masks, step)

    return PathOptimizer(init, update, _frozen_of(optimizer))


def _tightened(weights: Mapping[str, Array], masks: Mapping[str, Array], count: Array) -> dict[str, Array]:
    """Masks without the ``count`` smallest weights; those that are out already are smaller than any."""
    scores = [jnp.where(masks[path], order_bits(weights[path]) + 1, 0) for path in masks]
    return {path: ~removed for path, removed in zip(masks, smallest(scores, count), strict=True)}


def _held(updates: PyTree, params: PyTree, masks: Mapping[str, Array]) -> PyTree:
    """Updates that take removed weights to exactly zero."""

    def hold(key_path: Any, update: Array, weights: Array) -> Array:
        mask = masks.get(parameter_paths.path_of(key_path))
        return update if mask is None else jnp.where(mask, update, -weights)

    return jax.tree_util.tree_map_with_path(hold, updates, params)


def _check(masks: Mapping[str, AnyArray], params: PyTree) -> None:
    known, trained = parameter_paths.paths(params), _by_path(params)
    if unknown := [path for path in masks if path not in known]:
        raise ValueError(f"masks must be of parameters; there are none at {unknown}")
    for path, mask in masks.items():
        if path in trained and trained[path].shape != mask.shape:
            raise ValueError(f"masks must fit their kernels; at {path} {mask.shape} is not {trained[path].shape}")


def _by_path(params: PyTree) -> dict[str, Any]:
    return {parameter_paths.path_of(key): leaf for key, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _frozen_of(optimizer: Any) -> Any:
    return getattr(optimizer, "frozen", lambda params: jax.tree.map(lambda _: False, params))
