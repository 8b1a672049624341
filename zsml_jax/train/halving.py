"""Successive halving on the stacked trials of a study: train all a little, keep the best, train those further."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.train import sweep
from zsml_jax.train.checkpoint import Checkpointer
from zsml_jax.train.points import Points
from zsml_jax.train.study import Goal, Metric, Study
from zsml_jax.typing import Key, PyTree

#: ``(study, n) -> the trials that go on``: about n of them.
Choose = Callable[[Study, int], Int[np.ndarray, " m"]]


class Rung(NamedTuple):
    """What was decided after a rung.

    Attributes:
      steps: steps that each of the trials had done.
      trials: the trials that ran, ascending.
      metric: their metrics.
      kept: the trials that went on, ascending; in the last rung, all.
    """

    steps: int
    trials: Int[np.ndarray, " n"]
    metric: Float[np.ndarray, " n"]
    kept: Int[np.ndarray, " m"]


class Halving(NamedTuple):
    """A study after its last rung, and how it came there.

    Attributes:
      study: the trials that were left.
      rungs: the decisions.
    """

    study: Study
    rungs: tuple[Rung, ...]


def run(
    start: sweep.Train,
    step: sweep.Step,
    points: Points,
    *,
    key: Key,
    rungs: Sequence[int],
    metric: Metric,
    goal: Goal = "min",
    reduction_factor: int = 3,
    seeds: int = 1,
    mode: sweep.Mode = "vmap",
    args: Sequence[PyTree] = (),
    batch_size: int = 1,
    devices: Sequence[jax.Device] | None = None,
    evaluate: sweep.Step | None = None,
    choose: Choose | None = None,
    checkpoints: Checkpointer | None = None,
    chunk: int | None = None,
) -> Halving:
    r"""Runs successive halving (Jamieson and Talwalkar 2016), which ASHA runs asynchronously (Li et al. 2020).

    After each rung but the last, :math:`\max(1, \lfloor n / \eta \rfloor)` of the n trials go on, those with the best
    metric over all static configurations. The stacked axis shrinks with them, so that each rung compiles its programs
    once; a study of that many trials less is that much cheaper.

    Args:
      start: makes a trial's state, as ``train`` of :func:`.sweep.run`.
      step: takes a state one step further, as in :func:`.sweep.advance`.
      points: the hyperparameters.
      key: the study's key.
      rungs: the steps of each rung, for example ``(10, 20, 60)``, each at least 1.
      metric: what is compared: a leaf of the state by its path, or a function of it. NaN loses against everything, and
        ties go to the lower number.
      goal: whether a small or a large metric is good.
      reduction_factor: eta, at least 2.
      seeds: trials for each point; each is judged alone.
      mode: as in :func:`.sweep.run`, like the arguments that follow.
      args: shared arrays.
      batch_size: trials at a time.
      devices: of the trial axis.
      evaluate: what is done once after the steps of a rung, before trials are compared; a function as ``step``.
      choose: which trials go on, in place of those with the best metric each, for example whole points.
      checkpoints: where to save and from where to go on: a run that was killed and is called again gives what an
        uninterrupted one does. A save is offered every ``chunk`` steps and made after each rung.
      chunk: steps between two offers; whole rungs if None.

    Returns:
      The last rung's study and the decisions.

    Raises:
      ValueError: if ``rungs``, ``reduction_factor`` or ``chunk`` are not as above, or as :func:`.sweep.run`.
    """
    if not rungs or min(rungs) < 1:
        raise ValueError(f"rungs must be positive numbers of steps, got {tuple(rungs)}")
    if reduction_factor < 2:
        raise ValueError(f"reduction_factor must be at least 2, got {reduction_factor}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    how: dict[str, Any] = {"mode": mode, "args": args, "batch_size": batch_size, "devices": devices}
    choose = choose or (lambda study, n: study.ranking(metric, goal)[:n])
    decisions: list[Rung] = []
    steps = (checkpoints.latest_step or 0) if checkpoints else 0
    if checkpoints and steps:
        left, decisions = _decided(checkpoints.restore(subtree="decisions"))
        like = sweep.abstract(start, points, key=key, seeds=seeds, args=args, trials=left)
        study = checkpoints.restore(like=like, subtree="study")
    else:
        study = sweep.run(start, points, key=key, seeds=seeds, **how)
    for i in range(len(decisions), len(rungs)):
        end = sum(rungs[: i + 1])
        while steps < end:
            count = min(chunk or end, end - steps)
            study = sweep.advance(step, study, repeat=count, **how)
            steps += count
            if checkpoints and steps < end:
                checkpoints.save_lazily(steps, lambda: _saved(study, decisions))  # noqa: B023
        if evaluate is not None:
            study = sweep.advance(evaluate, study, **how)
        n_kept = len(study) if i == len(rungs) - 1 else max(1, len(study) // reduction_factor)
        kept = study.trials if i == len(rungs) - 1 else np.sort(choose(study, n_kept))
        decisions.append(Rung(steps, study.trials, study.metric(metric), kept))
        study = study.take(kept)
        if checkpoints:
            checkpoints.save(steps, _saved(study, decisions), force=True)
    return Halving(study, tuple(decisions))


def _saved(study: Study, decisions: Sequence[Rung]) -> PyTree:
    rungs = {str(i): rung._asdict() for i, rung in enumerate(decisions)}
    return {"study": study, "decisions": {"left": study.trials, "rungs": rungs}}


def _decided(saved: dict[str, Any]) -> tuple[np.ndarray, list[Rung]]:
    """The trials that are left and the rungs, of what :func:`_saved` gives a checkpoint."""
    rungs = saved.get("rungs", {})
    arrays = lambda rung: {name: np.asarray(rung[name]) for name in ("trials", "metric", "kept")}
    found = [Rung(int(rung["steps"]), **arrays(rung)) for rung in (rungs[str(i)] for i in range(len(rungs)))]
    return np.asarray(saved["left"]), found
