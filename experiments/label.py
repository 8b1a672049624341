"""Labels a person's own data from a few labels: votes, posteriors and an analysis of the functions that voted.

    python -m experiments.label --features X.npy --labels some.csv --method snuba --out labelled

``X.npy`` holds one row of floats an example. ``some.csv`` has a line ``row,label`` for each example that has a label,
the row counted from 0, the label any word; a first line with ``row`` in it is a heading. The folder that is written
holds ``votes.csv`` (a column for each function, empty where it abstains), ``posteriors.csv`` (a column for each class)
and ``report.md``. With ``--method iws --ask`` the questions of interactive weak supervision go to the terminal.
"""

import csv
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments import autolabel_files, runner
from zsml_jax.report.document import Document
from zsml_jax.weaksup import affinity, analyze, goggles, iws, label_model, snuba


@dataclasses.dataclass(frozen=True)
class Options:
    """Labels data from a few labels."""

    features: Path
    """A .npy file, one row of floats an example."""
    labels: Path
    """A CSV file, lines of a row number and a label."""
    method: Literal["snuba", "snuba_unipolar", "iws", "goggles"] = "snuba"
    """How labels are found."""
    label_model: Literal["metal", "dawid_skene", "naive_bayes", "flyingsquid", "majority_vote"] = "metal"
    """How votes become probabilities."""
    out: Path = Path("labelled")
    """The folder to write."""
    ask: bool = False
    """With iws, ask a person at the terminal which functions are useful; else the labels say it."""
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> Path:
    """Reads, labels, writes; returns the folder.

    Raises:
      SystemExit: with a message, if a file cannot be read or the data cannot be used.
    """
    options = tyro.cli(Options, args=argv, description=__doc__)
    with runner.refusals():
        x = autolabel_files.read_matrix(options.features).astype(np.float32)
        labels, classes = read_labels(options.labels, len(x))
        votes, posterior, model = label(options, x, labels, classes)
    write(options, votes, posterior, model, labels, classes)
    return options.out


def label(
    options: Options, x: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray | None, np.ndarray, str]:
    """Returns the votes, of a method that has functions, the posterior of every example, and what gave it."""
    key, k = jax.random.key(options.seed), len(classes)
    if options.method == "goggles":
        alike = affinity.cosine(x, x[labels != -1])[None]
        return None, np.asarray(goggles.fit(alike, labels, key=key).posterior(alike)), options.method
    if options.method == "iws":
        candidates = 2 * x.shape[1]
        queries = min(25, max(1, candidates - 4))
        config = iws.Config(queries=queries, first_queries=min(4, candidates - queries))
        ask = functools.partial(iws.ask_at_terminal, classes=classes)
        functions = iws.fit(x, labels, config, key=key, expert=ask if options.ask else None)
    else:
        polarity: Any = "unipolar" if options.method == "snuba_unipolar" else "multipolar"
        functions = snuba.fit(x, labels, snuba.Config(polarity=polarity), key=key)
    votes = functions.fitted_votes
    # These two see accuracies in how three functions agree.
    by_moments = options.label_model in ("metal", "flyingsquid")
    name = "majority_vote" if by_moments and votes.shape[1] < 3 else options.label_model
    fit: Callable[..., Any] = getattr(label_model, name).fit
    balance = np.bincount(labels[labels != -1], minlength=k) + 1
    known = {} if name == "majority_vote" else {"class_balance": balance / balance.sum()}
    return np.asarray(votes), np.asarray(fit(votes, k, **known).posterior(votes)), name


def read_labels(path: Path, n: int) -> tuple[np.ndarray, list[str]]:
    """Reads labels: class indices ``(n,)`` with -1 for no label, and the classes in alphabetical order.

    Raises:
      ValueError: if a line is no row number and label, a row is not there or comes twice, or there are fewer than two
        classes; the line is named.
    """
    given: dict[int, str] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, line in enumerate(csv.reader(file), start=1):
            if not line or (number == 1 and "row" in line[0].lower()):
                continue
            if len(line) != 2 or not line[0].strip().isdigit() or not line[1].strip():
                raise ValueError(f"{path}, line {number}, must be a row number and a label, got {','.join(line)!r}")
            row = int(line[0])
            if row >= n or row in given:
                problem = "comes twice" if row in given else f"is none of the {n} rows of the features"
                raise ValueError(f"{path}, line {number}: row {row} {problem}")
            given[row] = line[1].strip()
    classes = sorted(set(given.values()))
    if len(classes) < 2:
        raise ValueError(f"{path} must label examples of at least two classes, got {classes}")
    labels = np.full(n, -1)
    labels[list(given)] = [classes.index(name) for name in given.values()]
    return labels, classes


def write(
    options: Options,
    votes: np.ndarray | None,
    posterior: np.ndarray,
    model: str,
    labels: np.ndarray,
    classes: list[str],
) -> None:
    """Writes the votes, the posteriors and the report."""
    rows = [[i, *(f"{p:.6f}" for p in row)] for i, row in enumerate(posterior)]
    autolabel_files.write(options.out / "posteriors.csv", ["row", *classes], rows)
    seen = labels != -1
    told = {name: str(value) for name, value in dataclasses.asdict(options).items()}
    document = Document(options.out / "report.md", f"Labels by {options.method}", config=told)
    right = float((posterior.argmax(axis=1) == labels)[seen].mean())
    document.text(
        f"{len(labels)} examples, {int(seen.sum())} with a label, of the classes {', '.join(classes)}. The most "
        f"probable class agrees with {right:.1%} of the labels, which the method has seen."
    )
    if votes is not None:
        if model != options.label_model:
            document.text(
                f"There are {votes.shape[1]} functions, and {options.label_model} needs three: the posteriors are "
                f"those of {model}."
            )
        names = [f"function {j}" for j in range(votes.shape[1])]
        words = [[i, *("" if v == -1 else classes[v] for v in row)] for i, row in enumerate(votes)]
        autolabel_files.write(options.out / "votes.csv", ["row", *names], words)
        whole = analyze(votes, len(classes))
        if (votes[seen] != -1).any():
            whole = whole._replace(accuracy=analyze(votes[seen], len(classes), labels[seen]).accuracy)
        document.table(whole.table(names, title="Functions on all examples; accuracy on those with a label"))
        document.text(f"{float(whole.any_coverage):.1%} of the examples have a vote.")
    document.write()


if __name__ == "__main__":
    main()
