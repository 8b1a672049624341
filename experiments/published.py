"""The papers' own image and text sets, with the papers' settings, the published figures beside the measured ones.

    python -m experiments.published otter_clip --folder DIR --dataset cifar10
    python -m experiments.published loki_clip --folder DIR --model rn50

The embeddings are made elsewhere and lie in a folder that :mod:`zsml_jax.data.cached_embeddings` reads. RoboShot's
sets are presets of :mod:`experiments.roboshot`.
"""

import dataclasses
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.otter import accuracy_interval, bounds
from experiments.runner import Experiment
from zsml_jax import evaluate
from zsml_jax.data import cached_embeddings
from zsml_jax.report import Column, RunFolder, Table
from zsml_jax.zeroshot import loki, otter, prior_matching_released
from zsml_jax.zeroshot.metric_space import CompleteMetric, EuclideanMetric, Metric, TreeMetric

_CONFIGS = Path(__file__).parent.parent / "configs" / "published"

FILES = {
    "embeddings.npy": "(n, d) floats, an embedding of each example",
    "labels.npy": "(n,) class indices",
    "classes.json": "the list of the k class names",
    "class_embeddings.npy": "(k, d) floats, the embedding of each class's prompt by the same model",
}


@dataclasses.dataclass(frozen=True)
class OtterClip:
    """OTTER on a set of its table 1."""

    folder: Path | None = None
    """The folder of the set's embeddings."""
    dataset: str = "cifar10"
    """A row of the table: cifar10, imagenet_r, amazon, ..."""
    temperatures: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    """Of prior matching; the first is the released default, the paper's grid is not in its code."""
    learning_rates: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    """Of prior matching; likewise."""
    max_iterations: int = 10_000
    """Steps of prior matching at most, as released."""
    samplings: int = 10
    """Labelled samples that prior matching is tuned on, one after the other."""
    per_class: int = 10
    """Examples of each class in such a sample, at most half of them."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class LokiClip:
    """Loki on CIFAR-100, its table 1."""

    folder: Path | None = None
    """The folder of the test set's embeddings by the model."""
    model: str = "rn50"
    """rn50, vit_l14 or align."""
    temperature: float = 0.01
    """Divides the cosine similarities; CLIP's."""


def run(config: OtterClip | LokiClip, folder: RunFolder) -> None:
    """Runs the experiment of the config's type."""
    # By name: run as a script, this module is not the one that the presets import their classes from.
    experiments: dict[str, Experiment] = {"OtterClip": otter_clip, "LokiClip": loki_clip}
    experiments[type(config).__name__](config, folder)


def published(preset: str, *keys: str) -> dict[str, Any]:
    """Returns the figures of a preset's table under the keys, such as a data set and a model."""
    figures = json.loads((_CONFIGS / "figures.json").read_text(encoding="utf-8"))[preset]
    for key in keys:
        if key not in figures:
            raise SystemExit(f"{preset} has no published figures of {key!r}; there are {', '.join(figures)}")
        figures = figures[key]
    return figures


class Embedded(NamedTuple):
    """Unit embeddings of examples and classes, and what they are."""

    x: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    class_vectors: np.ndarray

    @property
    def cosines(self) -> np.ndarray:
        """Scores of all classes, ``(n, k)``."""
        return self.x @ self.class_vectors.T


def load(folder: Path | None, preset: str) -> Embedded:
    """Reads a folder of embeddings, or says which files it must hold."""
    if folder is None:
        _refuse(f"{preset} needs --folder DIR")
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        _refuse(f"{folder} lacks {', '.join(missing)}")
    content = cached_embeddings.load(folder)
    return Embedded(
        x=_unit_rows(content.embeddings, "embeddings.npy"),
        labels=content.labels,
        class_names=content.class_names,
        class_vectors=_unit_rows(content.class_embeddings, "class_embeddings.npy"),
    )


def otter_clip(config: OtterClip, folder: RunFolder) -> None:
    """Zero-shot, prior matching, OTTER and R-OTTER, from the softmax of raw cosines as released."""
    figures = published("otter_clip", config.dataset)
    content = load(config.folder, "otter_clip")
    labels, k = content.labels, len(content.class_names)
    log_probs = np.asarray(jax.nn.log_softmax(content.cosines, axis=1))
    nu = np.bincount(labels, minlength=k) / len(labels)

    plain = folder.cached("zero-shot and OTTER", lambda: transported(config, log_probs, labels, nu))
    tuned = [
        folder.cached(f"prior matching, sampling {i}", lambda i=i: tuned_accuracy(config, log_probs, labels, nu, i))
        for i in range(config.samplings)
    ]
    document = folder.document(f"OTTER's table 1: {config.dataset}")
    document.text(
        f"{len(labels)} examples, {k} classes. Scores are the softmax of raw cosines at temperature 1, the label "
        "distribution is the true one. Intervals of 95 % by bootstrap."
    )
    document.text(
        f"Prior matching, as released, is tuned on {config.per_class} labelled examples a class and measured on the "
        f"others: mean and standard deviation over {config.samplings} samplings. R-OTTER is the dual fitted on a "
        "random half and measured on the other half."
    )
    columns = [Column("accuracy", percent=True), Column("sd", percent=True)]
    columns += [Column("published", percent=True), Column("published sd", percent=True)]
    table = Table(["method", *columns], title=config.dataset)
    share = {name: None if value is None else value / 100 for name, value in figures.items()}
    table.add("zero-shot", bounds(plain["zero-shot"]), None, share["zero-shot"], None)
    spread = (float(np.mean(tuned)), float(np.std(tuned, ddof=1)) if len(tuned) > 1 else None) if tuned else (None,) * 2
    table.add("prior matching", *spread, share["prior matching"], share["prior matching sd"])
    for name in ("OTTER", "R-OTTER"):
        table.add(name, bounds(plain[name]), None, share[name], None)
    document.table(table)
    document.write()


def transported(
    config: OtterClip, log_probs: np.ndarray, labels: np.ndarray, nu: np.ndarray
) -> dict[str, evaluate.Interval]:
    """Accuracies of the argmax, of OTTER on all examples, and of OTTER's dual of one half on the other half."""
    key = jax.random.key(config.seed)
    order = np.random.default_rng(config.seed).permutation(len(labels))
    fitted, held_out = order[: len(order) // 2], order[len(order) // 2 :]
    dual = otter.solve(log_probs[fitted], nu)
    return {
        "zero-shot": accuracy_interval(labels, log_probs.argmax(1), key),
        "OTTER": accuracy_interval(labels, otter.solve(log_probs, nu).assignment, key),
        "R-OTTER": accuracy_interval(labels[held_out], dual.predict(log_probs[held_out]), key),
    }


def tuned_accuracy(
    config: OtterClip, log_probs: np.ndarray, labels: np.ndarray, nu: np.ndarray, sampling: int
) -> float:
    """Accuracy of released prior matching on all but the labelled sample that it is tuned on."""
    chosen = labelled_sample(labels, config.per_class, config.seed + sampling)
    tuned = prior_matching_released.tune_as_released(
        log_probs,
        nu,
        log_probs[chosen],
        labels[chosen],
        key=jax.random.key(config.seed + sampling),
        temperatures=jnp.array(config.temperatures),
        learning_rates=jnp.array(config.learning_rates),
        max_iterations=config.max_iterations,
    )
    return float(np.mean(np.asarray(tuned.fitted.predict(log_probs[~chosen])) == labels[~chosen]))


def labelled_sample(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Returns a mask of ``per_class`` random examples of each class, or half of a class that is too small."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        chosen[members[: min(per_class, len(members) // 2)]] = True
    return chosen


def loki_clip(config: LokiClip, folder: RunFolder) -> None:
    """Argmax against Loki in the metrics of the table that need no further file."""
    figures = published("loki_clip", config.model)
    content = load(config.folder, "loki_clip")
    metrics: dict[str, Metric] = {
        "internal": EuclideanMetric(content.class_vectors, content.class_names),
        "K100": CompleteMetric(content.class_names),
        "default tree": TreeMetric.from_hierarchy(superclass_tree(content.class_names), content.class_names),
    }
    probs = np.asarray(jax.nn.softmax(content.cosines / config.temperature, axis=1))
    rows = {
        name: folder.cached(name, lambda metric=metric: decoded(probs, content.labels, metric))
        for name, metric in metrics.items()
    }
    document = folder.document(f"Loki's table 1: CIFAR-100, {config.model}")
    document.text(
        f"{len(content.labels)} examples, {len(content.class_names)} classes; E[d^2] in each metric, and what Loki "
        "saves of it. The WordNet tree needs a file that is not in this package, so that it is not measured."
    )
    columns = [Column(f"{who}{name}", digits=4) for who in ("", "published ") for name in ("argmax", "Loki")]
    saved = [Column(f"{who}saved", percent=True, digits=2) for who in ("", "published ")]
    table = Table(["metric", *columns[:2], saved[0], *columns[2:], saved[1]], title="E[d^2]")
    for name in dict.fromkeys([*rows, *figures]):
        argmax, decoding, share = figures.get(name, (None, None, None))
        measured = rows.get(name, {"argmax": None, "Loki": None, "saved": None})
        table.add(name, *measured.values(), argmax, decoding, None if share is None else share / 100)
    document.table(table)
    document.write()


def superclass_tree(names: Sequence[str]) -> list[tuple[Hashable, Hashable]]:
    """Returns the child-parent edges of CIFAR-100's classes, their superclasses, and a root."""
    superclasses = json.loads((_CONFIGS / "cifar100_superclasses.json").read_text(encoding="utf-8"))
    parent = {name: superclass for superclass, members in superclasses.items() for name in members}
    if unknown := [name for name in names if name.replace("_", " ") not in parent]:
        raise SystemExit(f"classes.json must name classes of CIFAR-100, and {', '.join(unknown[:5])} is none")
    above = {name: f"superclass {parent[name.replace('_', ' ')]}" for name in names}
    return [*above.items(), *((superclass, "root") for superclass in dict.fromkeys(above.values()))]


def decoded(probs: np.ndarray, labels: np.ndarray, metric: Metric) -> dict[str, float]:
    """E[d^2] of the argmax and of Loki, and the share that Loki saves."""
    argmax = float(loki.report(labels, probs.argmax(1), metric).squared_distance)
    decoding = float(loki.report(labels, loki.decode(probs, metric), metric).squared_distance)
    return {"argmax": argmax, "Loki": decoding, "saved": 1 - decoding / argmax if argmax else 0.0}


def _unit_rows(x: np.ndarray | None, name: str) -> np.ndarray:
    x = np.asarray(x, np.float32)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        raise SystemExit(f"{name} must have no zero row, but row {int(norms[:, 0].argmin())} is zero")
    return x / norms


def _refuse(problem: str) -> NoReturn:
    lines = [f"  {name:<21} {what}" for name, what in FILES.items()]
    raise SystemExit(
        f"{problem}. CLIP weights are not in this package yet: make these files elsewhere.\n" + "\n".join(lines)
    )


if __name__ == "__main__":
    runner.main(run, "published")
