"""The training loop. It is meant to be read: everything it does is in :func:`fit`, in the order it happens."""

import collections
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from zsml_jax.report import RunFolder
from zsml_jax.train import activations, sharding
from zsml_jax.train.checkpoint import Checkpointer
from zsml_jax.train.early_stopping import Best, EarlyStopping
from zsml_jax.train.evaluator import Evaluator
from zsml_jax.train.not_finite import NotFiniteError, save_batch
from zsml_jax.train.profile import ProfileWindow
from zsml_jax.train.state import TrainState, frozen_mask, init_state
from zsml_jax.train.step import LossFn, make_step
from zsml_jax.train.step_progress import StepProgress
from zsml_jax.train.throughput import Throughput, step_flops
from zsml_jax.typing import Key, Params, PyTree, Scalar

#: Steps that may be under way on the device before the host waits for the oldest one's metrics.
_IN_FLIGHT = 2


class FitResult(NamedTuple):
    """What a run ends with.

    Attributes:
      state: the last state.
      step: the number of steps done, earlier runs included.
      stopped: ``"done"`` after all steps, ``"early"`` by early stopping, ``"data"`` if there was no more of it.
      history: what was logged, one dict a report, with its ``step``.
      best: the best measurement, where there was early stopping.
    """

    state: TrainState
    step: int
    stopped: Literal["done", "early", "data"]
    history: list[dict[str, float]]
    best: Best | None

    @property
    def params(self) -> Params:
        """The last parameters."""
        return self.state.params

    @property
    def average_params(self) -> Params:
        """The moving average of the parameters; the parameters themselves where there is none."""
        return self.state.average_params


def fit(
    loss_fn: LossFn,
    params: Params,
    data: Iterable[PyTree],
    *,
    optimizer: Any,
    steps: int,
    key: Key,
    accumulate: int = 1,
    compute_dtype: jax.typing.DTypeLike | None = None,
    average_decay: Scalar | None = None,
    mesh: Mesh | None = None,
    rules: Sequence[sharding.ShardingRule] = sharding.REPLICATED,
    batch_axes: str | tuple[str, ...] = "data",
    checkpoints: Checkpointer | None = None,
    evaluators: Sequence[Evaluator] = (),
    early_stopping: EarlyStopping | None = None,
    folder: RunFolder | None = None,
    log_every: int = 10,
    units: Callable[[PyTree], Scalar] | None = None,
    unit: str = "examples",
    peak_flops: float | int | None = None,
    profile: tuple[int, int] | None = None,
    show_progress: bool = True,
) -> FitResult:
    """Trains parameters, and goes on from the newest checkpoint where there is one.

    The step is compiled once, donates its state, and depends on nothing but the state and the batch: dropout's key is
    ``fold_in(key, step)``. So a run that was killed and resumed has the losses of one that was not, bit for bit.

    Args:
      loss_fn: parameters, batch and key to the mean loss and metrics; ``LossFn`` in :mod:`.step` says more.
      params: the parameters to begin with; they are copied.
      data: batches, trees of arrays with examples along the first axis; on several processes, each one's part. With
        ``checkpoints`` an iterator with ``get_state`` and ``set_state``, as :func:`zsml_jax.data.batches` returns.
      optimizer: of :func:`zsml_jax.train.optimizer.by_path`, or any of optax. Clipping is its business.
      steps: the number of steps, those of earlier runs included.
      key: the run's PRNG key.
      accumulate: parts in which each batch goes through the loss, to save memory.
      compute_dtype: dtype of the parameters in the loss, such as ``bfloat16``; the masters are float32 then.
      average_decay: keeps an exponential moving average of the parameters with this decay.
      mesh: devices of :func:`~zsml_jax.train.sharding.make_mesh`; by default one device.
      rules: how the parameters lie on the mesh; by default a copy on every device.
      batch_axes: mesh axes that divide the examples.
      checkpoints: where the run's checkpoints are; the last step is always saved. The optimizer's numbers are part of
        its state: a resumed run has those it began with.
      evaluators: measurements between steps.
      early_stopping: stops when a metric of an evaluator no longer gets better.
      folder: where metrics are logged, and traces and failing batches saved.
      log_every: the number of steps between two reports; the last step has one, too.
      units: a process's batch to the number of units in it, such as tokens; by default the examples.
      unit: what they are called.
      peak_flops: operations a second that one device can do (:func:`~zsml_jax.train.throughput.peak_flops` measures
        them); reports then have ``model_flops_utilisation``.
      profile: the first and the last step of a trace, written under the folder.
      show_progress: whether to show a bar, or lines off a terminal.

    Returns:
      The last state and what was logged: ``loss``, the loss's metrics, ``gradient_norm``, ``learning_rate``,
      ``<unit>_per_second`` and the evaluators' metrics.

    Raises:
      NotFiniteError: if a loss or gradient is not finite. No checkpoint has seen the step.
      Preempted: by the checkpointer, when the run was told to stop and all is saved.
      ValueError: if an argument is out of range or does not fit another.
    """
    _check(steps, log_every, key)
    _check_early_stopping(early_stopping, evaluators)
    trace = ProfileWindow(profile, folder)

    # The state: a fresh one on its devices, then what the newest checkpoint holds.
    mesh = mesh if mesh is not None else _default_mesh()
    state = _initial_state(
        params, mesh, rules, optimizer, key=key, average_decay=average_decay, compute_dtype=compute_dtype
    )
    iterator: Any = iter(data)
    if checkpoints is not None and not (hasattr(iterator, "get_state") and hasattr(iterator, "set_state")):
        raise ValueError(f"data must have get_state and set_state for checkpoints, a {type(iterator).__name__} has not")
    best = None if early_stopping is None else early_stopping.start()
    start = 0
    if checkpoints is not None and checkpoints.latest_step is not None:
        like = _tree(sharding.abstract(state), "", best)
        del state  # so that the device need not hold two
        saved = checkpoints.restore(like=like)
        state, best, start = saved["state"], saved["best"], checkpoints.latest_step
        iterator.set_state(json.loads(saved["data"]))

    # The step, with the state's shardings pinned so that no step moves it.
    pinned = jax.tree.map(lambda x: x.sharding, state)
    step_fn = jax.jit(
        make_step(loss_fn, optimizer, accumulate=accumulate, compute_dtype=compute_dtype),
        donate_argnums=0,
        out_shardings=(pinned, None),
    )
    flops = None
    history: list[dict[str, float]] = []
    pending: collections.deque[tuple[int, PyTree, Any]] = collections.deque()
    clock, step = Throughput(), start
    stopped: Literal["done", "early", "data"] = "done"
    if early_stopping is not None and best is not None and early_stopping.stops(best):
        stopped = "early"

    def settle(limit: int) -> None:
        """Waits until at most ``limit`` steps are under way, and reports those that are done."""
        while len(pending) > limit:
            number, batch, metrics = pending.popleft()
            metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not metrics.pop("finite"):
                path = None if folder is None else save_batch(folder.path, number, batch)
                raise NotFiniteError(number, metrics, state, path)
            if number % log_every == 0 or number == steps:
                report(number, metrics | speed())

    def speed() -> dict[str, float]:
        units_per_second, steps_per_second = clock.rates()
        measured = {f"{unit}_per_second": units_per_second * jax.process_count()}
        if peak_flops is not None and flops is not None:
            measured["model_flops_utilisation"] = flops * steps_per_second / (peak_flops * mesh.size)
        return measured

    def report(number: int, metrics: Mapping[str, float]) -> None:
        history.append({"step": number, **metrics})
        if folder is not None:
            folder.log(number, **metrics)
        progress.report(number, metrics)

    def snapshot() -> PyTree:
        """The tree of a checkpoint; a step that is not finite ends the run before it gets into one."""
        settle(0)
        return _tree(state, json.dumps(iterator.get_state()), best)

    with trace, StepProgress(start, steps, shown=show_progress) as progress:
        while step < steps and stopped == "done":
            batch = next(iterator, None)
            if batch is None:
                stopped = "data"
                break
            step += 1
            trace.before(step)
            placed = sharding.shard_batch(batch, mesh, axes=batch_axes)
            if flops is None and peak_flops is not None:
                flops = _flops(loss_fn, optimizer, state, placed)
            with activations.divided(mesh, batch_axes):
                state, metrics = step_fn(state, placed)
            if step == start + 1:
                clock.rates()  # compilation is not training
            clock.count(float(len(jax.tree.leaves(batch)[0]) if units is None else units(batch)))
            pending.append((step, batch, metrics))
            settle(_IN_FLIGHT)
            trace.after(step, state)
            progress.advance(step)

            if due := [evaluator for evaluator in evaluators if step % evaluator.every == 0 or step == steps]:
                settle(0)
                with clock.paused():
                    measured = _evaluate(due, state)
                report(step, measured)
                if early_stopping is not None and best is not None:
                    best = early_stopping.update(best, step, measured)
                    stopped = "early" if early_stopping.stops(best) else stopped
            if checkpoints is not None:
                checkpoints.save_lazily(step, snapshot, force=step == steps or stopped == "early")
        settle(0)
        if checkpoints is not None and step > start:
            checkpoints.save_lazily(step, snapshot, force=True)
            checkpoints.wait()
    return FitResult(state, step, stopped, history, best)


def _initial_state(
    params: Params, mesh: Mesh, rules: Sequence[sharding.ShardingRule], optimizer: Any, *, key: Key, **options: Any
) -> TrainState:
    """Makes the state where it belongs, so that no device ever holds more than its part."""
    placed = sharding.shard(params, sharding.partition(params, mesh, rules))
    implementation = jax.random.key_impl(key)

    def make(params: Params, words: Any) -> TrainState:
        # The copy keeps the caller's arrays from being donated.
        key = jax.random.wrap_key_data(words, impl=implementation)
        return init_state(jax.tree.map(jnp.copy, params), optimizer, key=key, **options)

    words = np.asarray(jax.random.key_data(key))
    shardings = sharding.state_shardings(jax.eval_shape(make, placed, words), mesh, rules)
    return jax.jit(make, out_shardings=shardings)(placed, words)


def _default_mesh() -> Mesh:
    return sharding.make_mesh("data:-1", devices=None if jax.process_count() > 1 else jax.local_devices()[:1])


def _tree(state: TrainState, data: str, best: Best | None) -> dict[str, PyTree]:
    """What a checkpoint of the run holds; the position in the data is JSON text."""
    return {"state": state, "data": data, "best": best}


def _evaluate(evaluators: Sequence[Evaluator], state: TrainState) -> dict[str, float]:
    metrics = {}
    for evaluator in evaluators:
        measured = evaluator.run(state.average_params if evaluator.averaged else state.params)
        metrics |= {f"{evaluator.name}/{name}": float(value) for name, value in measured.items()}
    return metrics


def _flops(loss_fn: LossFn, optimizer: Any, state: TrainState, batch: PyTree) -> float:
    any_frozen = any(jax.tree.leaves(frozen_mask(optimizer, state.params)))
    return step_flops(loss_fn, state.params, batch, state.key, any_frozen=any_frozen)


def _check(steps: int, log_every: int, key: Key) -> None:
    for name, value in (("steps", steps), ("log_every", log_every)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise ValueError(f"key must be a typed key of jax.random.key, got an array of {key.dtype}")


def _check_early_stopping(early_stopping: EarlyStopping | None, evaluators: Sequence[Evaluator]) -> None:
    names = [evaluator.name for evaluator in evaluators]
    if early_stopping and not any(early_stopping.metric.startswith(f"{name}/") for name in names):
        raise ValueError(f"early_stopping must name a metric of the evaluators {names}, got {early_stopping.metric!r}")
