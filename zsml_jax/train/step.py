"""One step of training as a pure function of a state and a batch."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from zsml_jax.train import optimizer as optimizers
from zsml_jax.train import trainable
from zsml_jax.train.state import TrainState, cast, frozen_mask, update_average
from zsml_jax.typing import AnyArray, Array, Key, Params, PyTree

#: The metric that says how much a batch counts; parts of a batch are averaged by it.
WEIGHT = "weight"


#: Parameters, batch and key to the batch's mean loss and to metrics that are means, too. A metric named ``weight``,
#: such as the number of tokens that were predicted, says how much the batch counts.
LossFn: TypeAlias = Callable[[Params, PyTree, Key], tuple[Array, Mapping[str, Array]]]


def make_step(
    loss_fn: LossFn,
    optimizer: Any,
    *,
    accumulate: int = 1,
    compute_dtype: jax.typing.DTypeLike | None = None,
) -> Callable[[TrainState, PyTree], tuple[TrainState, dict[str, Array]]]:
    """Returns the step; jit it with the state donated.

    Gradients are taken of the trained parameters only. A step whose loss or gradient is not finite leaves the
    parameters as they were and clears ``state.finite``, and every later step does nothing.

    Args:
      loss_fn: the loss.
      optimizer: of :mod:`.optimizer`, or any of optax.
      accumulate: the number of equal parts in which a batch goes through the loss. The gradient is that of the whole
        batch if the loss is a plain mean over examples, or reports its ``weight``.
      compute_dtype: the dtype that the loss gets the parameters in; gradients are float32 again.

    Returns:
      A function from state and batch to state and metrics: ``loss``, those of the loss, ``gradient_norm`` (before
      clipping), ``learning_rate`` and ``finite``.

    Raises:
      ValueError: if ``accumulate`` is not positive; when traced, if it does not divide the batch, or the loss is no
        scalar.
    """
    if accumulate < 1:
        raise ValueError(f"accumulate must be at least 1, got {accumulate}")

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, dict[str, Array]]:
        trained = trainable.select(state.params, frozen_mask(optimizer, state.params))

        def loss_of(trained: PyTree, part: PyTree, key: Key) -> tuple[Array, dict[str, Array]]:
            params = trainable.merge(trained, state.params)
            loss, metrics = loss_fn(params if compute_dtype is None else cast(params, compute_dtype), part, key)
            if jnp.shape(loss):
                raise ValueError(f"loss_fn must return a scalar loss, got shape {jnp.shape(loss)}")
            means = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
            return loss.astype(jnp.float32), {"loss": loss.astype(jnp.float32), **means}

        key = jax.random.fold_in(state.key, state.step)
        gradient = jax.grad(loss_of, has_aux=True)
        if accumulate == 1:
            gradients, metrics = gradient(trained, batch, key)
        else:
            gradients, metrics = _accumulated(gradient, trained, _parts(batch, accumulate), key, accumulate)
        norm = optax.tree.norm(gradients)
        finite = state.finite & jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        moved = optax.apply_updates(trained, updates)
        average = None if state.average is None else update_average(state.average, moved, state.step)
        before = (state.step, trained, state.opt_state, state.average)
        after = (state.step + 1, moved, opt_state, average)
        number, trained, opt_state, average = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
        params = trainable.merge(trained, state.params)
        rates = optimizers.learning_rates(opt_state)
        state = TrainState(number, params, opt_state, average, state.key, finite)
        return state, {**metrics, "gradient_norm": norm, **rates, "finite": finite}

    return step


def _parts(batch: PyTree, accumulate: int) -> PyTree:
    """Cuts examples into parts along a new first axis.

    Part i takes the examples i, i + accumulate, ...: an axis of examples that is divided over devices stays so.
    """

    def cut(x: AnyArray) -> AnyArray:
        if x.shape[0] % accumulate:
            raise ValueError(f"accumulate must divide the batch, got {accumulate} and {x.shape[0]} examples")
        return x.reshape(x.shape[0] // accumulate, accumulate, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)


def _accumulated(
    gradient: Callable[..., tuple[PyTree, dict[str, Array]]], trained: PyTree, parts: PyTree, key: Key, count: int
) -> tuple[PyTree, dict[str, Array]]:
    """Returns gradients and metrics averaged over the parts by their weights; the weights themselves are summed."""

    def add(total: Any, numbered: Any) -> tuple[Any, None]:
        i, part = numbered
        gradients, metrics = gradient(trained, part, jax.random.fold_in(key, i))
        weight = metrics.get(WEIGHT, jnp.ones((), jnp.float32))
        weighted = jax.tree.map(lambda x: x * weight.astype(x.dtype), (gradients, metrics))
        return jax.tree.map(jnp.add, total, (weight, *weighted)), None

    one = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(gradient, trained, one, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (jax.ShapeDtypeStruct((), jnp.float32), *shapes))
    (weight, gradients, metrics), _ = jax.lax.scan(add, zeros, (jnp.arange(count), parts))
    gradients, metrics = jax.tree.map(lambda x: x / weight.astype(x.dtype), (gradients, metrics))
    return gradients, metrics | ({WEIGHT: weight} if WEIGHT in metrics else {})
