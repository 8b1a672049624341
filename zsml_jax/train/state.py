"""What a training run carries from step to step, a pytree that is donated, sharded and saved as it is."""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from zsml_jax.train import trainable
from zsml_jax.train.number_range import require_positive
from zsml_jax.typing import AnyArray, Key, Params, PyTree, Scalar


class Average(NamedTuple):
    """An exponential moving average of the trained parameters.

    Attributes:
      decay: the share of the older average that stays in a step, after the first steps; traced.
      params: the average, with frozen parameters taken out.
    """

    decay: PyTree
    params: PyTree


@flax.struct.dataclass
class TrainState:
    """The state of a run.

    Attributes:
      step: the number of steps done.
      params: all parameters; the trained ones are the float32 masters where computation is in another dtype.
      opt_state: the optimizer's state; it knows nothing of frozen parameters.
      average: the moving average, or None.
      key: the run's PRNG key, which never changes; step s uses ``fold_in(key, s)``.
      finite: whether all losses and gradients so far were finite. A step that was not, and all after it,
        change nothing.
    """

    # The fields also hold abstract arrays and shardings of themselves.
    step: PyTree
    params: PyTree
    opt_state: PyTree
    average: PyTree
    key: PyTree
    finite: PyTree

    @property
    def average_params(self) -> Params:
        """The parameters with the trained ones averaged; the parameters themselves where there is no average."""
        return self.params if self.average is None else trainable.merge(self.average.params, self.params)


def init_state(
    params: Params,
    optimizer: Any,
    *,
    key: Key,
    average_decay: Scalar | None = None,
    compute_dtype: jax.typing.DTypeLike | None = None,
) -> TrainState:
    """Returns the state before the first step; it can be jitted, and mapped by :func:`jax.eval_shape`.

    Args:
      params: the parameters. With a ``compute_dtype`` the trained ones become float32, and the frozen ones that dtype.
      optimizer: of :mod:`.optimizer`, or any of optax.
      key: the run's key.
      average_decay: keeps a moving average of the trained parameters, with this decay.
      compute_dtype: the dtype in which the loss is computed; by default that of the parameters.

    Raises:
      ValueError: if a parameter has no rule in the optimizer, or the decay is not between 0 and 1.
    """
    frozen = frozen_mask(optimizer, params)
    if compute_dtype is not None:
        params = jax.tree.map(
            lambda leaf, is_frozen: cast(leaf, compute_dtype if is_frozen else jnp.float32), params, frozen
        )
    trained = trainable.select(params, frozen)
    average = None
    if average_decay is not None:
        require_positive("average_decay", average_decay)
        # A copy, since the masters are donated and one buffer cannot be donated twice.
        average = Average(jnp.asarray(average_decay, jnp.float32), jax.tree.map(jnp.copy, trained))
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(trained), average, key, jnp.ones((), bool))


def frozen_mask(optimizer: Any, params: PyTree) -> PyTree:
    """Returns a tree of booleans, True where the optimizer leaves a parameter as it is."""
    frozen = getattr(optimizer, "frozen", None)
    return jax.tree.map(lambda _: False, params) if frozen is None else frozen(params)


def cast(tree: PyTree, dtype: jax.typing.DTypeLike) -> PyTree:
    """Returns the tree with its floating-point arrays in another dtype.

    >>> cast({"a": jnp.ones(1), "n": jnp.ones(1, int)}, jnp.bfloat16)
    {'a': Array([1], dtype=bfloat16), 'n': Array([1], dtype=int32)}
    """
    convert = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(convert, tree)


def update_average(average: Average, trained: PyTree, step: AnyArray) -> Average:
    """Moves the average towards the parameters after a step.

    The decay is at most ``(1 + s) / (10 + s)`` after s steps, so that the start is soon forgotten (as TensorFlow's
    ``ExponentialMovingAverage`` does with ``num_updates``).
    """
    decay = jnp.minimum(average.decay, (1 + step) / (10 + step))
    moved = jax.tree.map(lambda old, new: old + (1 - decay).astype(old.dtype) * (new - old), average.params, trained)
    return Average(average.decay, moved)
