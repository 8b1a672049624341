"""Labels a person's own data: asks for some labels, gives the rest where it is sure, and says how sure.

    python -m experiments.autolabel --features X.npy --classes cat dog --out job

The first call writes ``job/to_label.csv``. Fill in its label column and run the same command again, until all rounds
are done; each call takes in what was filled in and goes on where the last one ended. Then ``job/labels.csv`` holds
every label, human or automatic, with its confidence; ``job/audit.csv`` a sample of auto-labels to look at;
``job/report.md`` the thresholds and the certified bound. Where ``labels.csv`` is wrong, correct its label column; in
``audit.csv`` say yes or no in the column right. The same command takes in both and writes a new report.

Texts (``--texts T.csv`` with the columns id and text) are embedded by a sentence encoder. Labels of another file are
given with ``--labels``, in any call; in the first one ``--labelled-at-random`` says that they are a random sample of
the points, and they are used first.
"""

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.stats
import tyro

from experiments import autolabel_files, autolabel_job, runner
from experiments.autolabel_job import Job
from zsml_jax.autolabel import Config, tbal
from zsml_jax.autolabel.state import Audit, TBALState
from zsml_jax.report import Column, Document, Table
from zsml_jax.report.records import dumps, write_atomic
from zsml_jax.train.checkpoint import Checkpointer

#: Files of the folder that a human fills in or corrects.
ANSWERS = ("to_label.csv", "labels.csv")


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the job as far as the labels allow, and returns its folder.

    Raises:
      SystemExit: with the message of what is wrong with the files or the numbers.
    """
    job = tyro.cli(Job, args=argv, prog="python -m experiments.autolabel", description=__doc__)
    try:
        with runner.refusals():
            return work(job)
    except OSError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on")
        raise SystemExit(130) from None


def work(job: Job) -> Path:
    """Does what :func:`main` does.

    Raises:
      ValueError: as :mod:`.autolabel_files` and :mod:`.autolabel_job`.
      FileNotFoundError: if a file is not there.
      OSError: if a file cannot be read or written.
    """
    job = dataclasses.replace(job, classes=tuple(name.strip() for name in job.classes))
    points = autolabel_files.read_points(job.features, job.texts, job.ids)
    autolabel_job.check(job, len(points.ids))
    identity = autolabel_job.identity(job, points)
    autolabel_job.check_folder(job.out, identity)
    kept, audit = job.out / "human_labels.csv", job.out / "audit.csv"
    old = autolabel_files.read_labels(kept, points.ids, job.classes) if kept.is_file() else {}
    given = read_labels(job, points, job.labels)
    autolabel_files.check_unchanged(kept, old, given)
    human = {**old, **given}
    verdicts = autolabel_files.read_verdicts(audit, points.ids) if audit.is_file() else {}
    x = autolabel_job.features_of(job, points)
    config = autolabel_job.settings(job, x.shape[1])
    at_hand = np.array([job.labelled_at_random and name in human for name in points.ids])
    state = tbal.start(x, config, key=jax.random.key(job.seed), labelled=at_hand)
    # What can be refused has been; the first file that is written binds the folder to the job.
    write_atomic(job.out / "job.json", dumps(identity, indent=2))
    autolabel_files.write(kept, ("id", "label"), human.items())
    tell(f"{len(given)} human labels were taken in, {len(human) - len(old)} of them new")
    index = {name: i for i, name in enumerate(job.classes)}
    with Checkpointer(job.out / "checkpoints", keep=1) as checkpoints:
        if checkpoints.latest_step is None:
            # Saved before the first question, so that later labels cannot move what was drawn.
            checkpoints.save(0, state, force=True)
        else:
            state = checkpoints.restore(like=state)
            check_used(job, points, human, state)
        while not tbal.finished(state, config) and threshold_points_left(job, state) >= job.fewest:
            rows = tbal.wanted(state)
            missing = [row for row in rows if points.ids[row] not in human]
            if missing:
                check_taken_in(job, points, human)
                ask(job, points, missing)
                tell(f"{len(missing)} labels are wanted; fill in {job.out / 'to_label.csv'} and run the same command")
                return job.out
            labels = np.array([index[human[points.ids[row]]] for row in rows])
            state = tbal.advance(tbal.tell(state, rows, labels), x, config)
            if state.diverged:
                raise ValueError("training diverged: the classifier's weights are not finite")
            checkpoints.save(int(state.round), state, force=True)
    check_taken_in(job, points, human)
    finish(job, points, human, verdicts, state, config)
    return job.out


def read_labels(job: Job, points: autolabel_files.Points, other: Path | None = None) -> dict[str, str]:
    """Reads human labels: what was filled in in the folder, and those of another file."""
    own = [job.out / name for name in ANSWERS]
    paths = [path for path in own if path.is_file()]
    if other is not None and other.absolute() not in [path.absolute() for path in own]:
        paths.append(other)
    return autolabel_files.join({path: autolabel_files.read_labels(path, points.ids, job.classes) for path in paths})


def check_taken_in(job: Job, points: autolabel_files.Points, human: Mapping[str, str]) -> None:
    """Refuses to write over files that somebody has filled in since they were read.

    Raises:
      ValueError: if they say what ``human`` does not.
    """
    if any(human.get(name) != label for name, label in read_labels(job, points).items()):
        raise ValueError(f"files of {job.out} were filled in while the program ran; run the same command again")


def check_used(job: Job, points: autolabel_files.Points, human: Mapping[str, str], state: TBALState) -> None:
    """Refuses human labels that are not those the job has worked with.

    Raises:
      ValueError: if one is gone or was changed by hand in human_labels.csv.
    """
    known = np.asarray(state.known)
    for row in np.flatnonzero(known >= 0):
        name, label = points.ids[row], job.classes[known[row]]
        if human.get(name) != label:
            raise ValueError(
                f"{job.out / 'human_labels.csv'} must say {label!r} of {name!r}, which the job has worked with, "
                f"got {human.get(name, '')!r}"
            )


def threshold_points_left(job: Job, state: TBALState, r: int | None = None) -> int:
    """Returns how many threshold points the rule had not labelled before round ``r``, by default the next one."""
    first = job.checkpoint_points + job.calibration_points
    given_in = np.asarray(state.labelled_in)[np.asarray(state.held)[first : first + job.threshold_points]]
    return int(((given_in < 0) | (given_in >= (int(state.round) if r is None else r))).sum())


def ask(job: Job, points: autolabel_files.Points, rows: Sequence[int]) -> None:
    """Writes the questions, in a random order, so that nobody can tell which of them have which role."""
    order = np.random.default_rng(job.seed).permutation(rows)
    text = lambda row: [] if points.texts is None else [points.texts[row]]
    columns = ["id", "label", *([] if points.texts is None else ["text"])]
    autolabel_files.write(job.out / "to_label.csv", columns, [[points.ids[row], "", *text(row)] for row in order])


def finish(
    job: Job,
    points: autolabel_files.Points,
    human: Mapping[str, str],
    verdicts: Mapping[str, bool],
    state: TBALState,
    config: Config,
) -> None:
    """Writes all labels, the audit sample and the report."""
    auto, scores, given_in = (np.asarray(a) for a in (state.auto_labels, state.scores, state.labelled_in))
    rows: list[list[Any]] = []
    for row, name in enumerate(points.ids):
        # What a human said stands, whatever the classifier says.
        if name in human:
            rows.append([name, human[name], "human", "", "", ""])
        elif auto[row] >= 0:
            label = job.classes[auto[row]]
            rows.append([name, label, "auto", f"{scores[row]:.6g}", int(given_in[row]) + 1, label])
        else:
            rows.append([name, "", "none", "", "", ""])
    columns = ("id", "label", "source", "confidence", "round", "auto_label")
    autolabel_files.write(job.out / "labels.csv", columns, rows)
    automatic = [row for row in rows if row[2] == "auto"]
    # Once there, the sample is a human's to write in.
    if not (job.out / "audit.csv").is_file():
        chosen = np.random.default_rng(job.seed).permutation(len(automatic))[: job.audit_sample]
        sample = [[automatic[i][0], automatic[i][1], ""] for i in sorted(chosen)]
        autolabel_files.write(job.out / "audit.csv", ("id", "auto_label", "right"), sample)
    told = outcome(job, state, config, human)
    report(job, state, config, rows, verdicts.values(), told)
    (job.out / "to_label.csv").unlink(missing_ok=True)
    tell(" ".join(told))
    tell(f"done: {len(automatic)} auto-labels in {job.out / 'labels.csv'}, see {job.out / 'report.md'}")


def outcome(job: Job, state: TBALState, config: Config, human: Mapping[str, str]) -> list[str]:
    """Returns what was made of the human labels, and where the job ended early or certified nothing, and why."""
    used, rounds = int(state.spent), int(state.round)
    told = [f"Of {len(human):,} human labels {used:,} were asked for and used, {len(human) - used:,} were not needed."]
    if not tbal.finished(state, config):
        told.append(
            f"Stopped after round {rounds} of {job.rounds}: the rule has left {threshold_points_left(job, state)} "
            f"threshold points, too few to certify anything more, which takes {job.fewest} without an error."
        )
    if not np.isfinite(np.asarray(state.thresholds)).any():
        too_few = ", or no class has enough threshold points" if job.per_class else ""
        told.append(
            f"Nothing could be certified: the classifier is not good enough{too_few}. Of the threshold points it was "
            f"surest of, at least {job.fewest}{' a class' * job.per_class}, it got too many wrong for an error of "
            f"{job.error:g}. More --seed-points or --threshold-points, other features or a larger --error may help, "
            "with another --out."
        )
    return told


def report(
    job: Job,
    state: TBALState,
    config: Config,
    rows: Sequence[Sequence[Any]],
    verdicts: Collection[bool],
    told: Sequence[str],
) -> None:
    """Writes what the auto-labels are worth."""
    counts = {source: sum(row[2] == source for row in rows) for source in ("human", "auto", "none")}
    document = Document(job.out / "report.md", "Auto-labels", config=dataclasses.asdict(job))
    document.text(
        f"Of {len(rows):,} points {counts['human']:,} were labelled by a human and {counts['auto']:,} automatically; "
        f"{counts['none']:,} are left without a label."
    )
    document.text(" ".join(told))
    automatic = [row for row in rows if row[2] == "auto"]
    if automatic or verdicts:
        _guarantee(document, job, state.audit(config), verdicts)
    document.table(_rounds(job, state, automatic))
    document.text(
        f"A threshold is missing where fewer than {job.fewest} threshold points{' of the class' * job.per_class} lie "
        "above any, or too many of these are wrong."
    )
    classes = Table(["class", "human labels", "auto-labels"])
    for name in job.classes:
        human = sum(row[1:3] == [name, "human"] for row in rows)
        classes.add(name, human, sum(row[1] == name for row in automatic))
    document.table(classes)
    document.write()


def tell(message: str) -> None:
    """Prints a line for the person."""
    print(message, file=sys.stderr, flush=True)


def _guarantee(document: Document, job: Job, audit: Audit, verdicts: Collection[bool]) -> None:
    """Writes what is certified of the auto-labels, and what the audits say of them."""
    scope = "in each class" if job.per_class else "over all classes"
    document.text(
        f"Thresholds are certified: with probability at least {1 - job.failure:g}, the rule of each round errs in at "
        f"most {job.error:g} of what it labels {scope}, on points drawn as the threshold points were, at random. The "
        "share of errors among the auto-labels here scatters around that, the more the fewer they are. In rounds after "
        "the first one the classifier depends on earlier decisions that were made on the same points; the audit does "
        "not."
    )
    document.text(
        f"Audit: {audit.errors} of {audit.count} auto-labelled audit points are wrong; 95 % upper bound of the error "
        f"{audit.upper:.3f}."
    )
    wrong, seen = sum(not right for right in verdicts), len(verdicts)
    if seen:
        upper = scipy.stats.binomtest(wrong, seen, alternative="less").proportion_ci(0.95).high
        document.text(
            f"A human looked at {seen} auto-labels of audit.csv, of which {wrong} are wrong; 95 % upper bound of the "
            f"error {upper:.3f}."
        )
    else:
        document.text("audit.csv is a random sample of auto-labels for a second look; nobody has filled it in yet.")


def _rounds(job: Job, state: TBALState, automatic: Sequence[Sequence[Any]]) -> Table:
    """The thresholds: one a round, or one a round and class where each class has its own."""
    numbers = [Column("threshold", digits=4), Column("bound of the error", digits=4)]
    table = Table(["round", *(["class"] if job.per_class else []), "threshold points", *numbers, "auto-labels"])
    for r in range(int(state.round)):
        left = threshold_points_left(job, state, r)
        of_round = [row for row in automatic if row[4] == r + 1]
        for k, name in enumerate(job.classes[: None if job.per_class else 1]):
            limit, bound = float(state.thresholds[r, k]), float(state.bounds[r, k])
            labelled = sum(not job.per_class or row[1] == name for row in of_round)
            found = (limit, bound) if np.isfinite(limit) else (None, None)
            table.add(str(r + 1), *([name] if job.per_class else []), left, *found, labelled)
    return table


if __name__ == "__main__":
    main()
