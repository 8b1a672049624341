"""Successive halving on the stacked trials of a study: train all a little, keep the best, train those further."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from zsml_jax.train import sweep
from zsml_jax.train.points import Points
from zsml_jax.train.study import Goal, Metric, Study
from zsml_jax.typing import Key, PyTree


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

    Returns:
      The last rung's study and the decisions.

    Raises:
      ValueError: if ``rungs`` or ``reduction_factor`` are not as above, or as :func:`.sweep.run`.
    """
    if not rungs or min(rungs) < 1:
        raise ValueError(f"rungs must be positive numbers of steps, got {tuple(rungs)}")
    if reduction_factor < 2:
        raise ValueError(f"reduction_factor must be at least 2, got {reduction_factor}")
    study = sweep.run(start, points, key=key, seeds=seeds, mode=mode, args=args, batch_size=batch_size, devices=devices)
    decisions: list[Rung] = []
    steps = 0
    for i, length in enumerate(rungs):
        study = sweep.advance(step, study, repeat=length, mode=mode, args=args, batch_size=batch_size, devices=devices)
        steps += length
        n_kept = len(study) if i == len(rungs) - 1 else max(1, len(study) // reduction_factor)
        kept = np.sort(study.ranking(metric, goal)[:n_kept])
        decisions.append(Rung(steps, study.trials, study.metric(metric), kept))
        study = study.take(kept)
    return Halving(study, tuple(decisions))
