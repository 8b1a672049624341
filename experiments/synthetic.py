"""The papers' synthetic experiments: known problems, where the best possible answer is known too.

python -m experiments.synthetic bayes_recovery
python -m experiments.synthetic gaussians
python -m experiments.synthetic next_class
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments import runner
from experiments.otter import bounds
from zsml_jax import evaluate
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.zeroshot import locus, otter, roboshot
from zsml_jax.zeroshot.metric_space import TreeMetric
from zsml_jax.zeroshot.synthetic import label_shift_gaussians, roboshot_gaussians


@dataclasses.dataclass(frozen=True)
class BayesRecovery:
    """OTTER on two Gaussians whose label distribution shifts (the repository's synthetic experiment)."""

    target_rates: tuple[float, ...] = tuple(round(0.9 - 0.05 * i, 2) for i in range(16))
    """Positive rates of the target; the source's is 0.9."""
    n: int = 10_000
    """Training and test examples."""
    repeats: int = 10
    seed: int = 42


@dataclasses.dataclass(frozen=True)
class Gaussians:
    """RoboShot on its four Gaussians, against the noise of the insights."""

    insight_noise: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
    """Standard deviations of an insight's coefficients on other concepts."""
    n_per_group: int = 2500
    repeats: int = 100
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class NextClass:
    """Which class to observe next: Loki's choice against a random one, on random trees."""

    nodes: int = 100
    start: int = 3
    """Observed classes to begin with."""
    steps: int = 20
    trials: int = 10
    seed: int = 0


def run(config: BayesRecovery | Gaussians | NextClass, folder: RunFolder) -> None:
    """Runs the experiment of the config's type."""
    # By name: run as a script, this module is not the one that the presets import their classes from.
    experiments: dict[str, Callable[..., None]] = {
        "BayesRecovery": bayes_recovery,
        "Gaussians": gaussians,
        "NextClass": next_class,
    }
    experiments[type(config).__name__](config, folder)


def bayes_recovery(config: BayesRecovery, folder: RunFolder) -> None:
    """Accuracy of naive, exact, entropic and Bayes decisions against the target's positive rate."""
    methods = ("naive", "OTTER", "entropic, 1 nat", "Bayes")
    table = Table(["positive rate", *(Column(m, percent=True, digits=2) for m in methods)], title="Two Gaussians")
    curves: dict[str, list[tuple[float, float, float]]] = {name: [] for name in methods}
    for rate in config.target_rates:
        repeats = folder.cached(
            f"rate {rate}", lambda rate=rate: [shifted(config, rate, i) for i in range(config.repeats)]
        )
        rows = [bounds(evaluate.seed_interval(np.array([r[name] for r in repeats]))) for name in methods]
        table.add(f"{rate:g}", *rows)
        for name, row in zip(methods, rows, strict=True):
            curves[name].append(row)
    document = folder.document("Recovering the Bayes decisions under label shift")
    document.text(
        "Scores are a logistic regression's, trained at a positive rate of 0.9. OTTER gets the target's positive rate "
        "of the labels. It would recover Bayes from the marginal of the Bayes decisions; the label distribution is "
        "another one, so that at low shift it loses a little, while the entropic plan of one nat is Bayes' rule."
    )
    document.table(table)
    bands = {name: plot.Band(*(100 * np.array(rows).T)) for name, rows in curves.items()}
    document.figure(
        "rates", plot.lines(config.target_rates, bands, xlabel="target positive rate", ylabel="accuracy (%)")
    )
    document.write()


def shifted(config: BayesRecovery, rate: float, repeat: int) -> dict[str, float]:
    """One draw of the source and the target."""
    source_key, target_key = jax.random.split(jax.random.key(1000 * config.seed + repeat))
    source = label_shift_gaussians(source_key, n=config.n, target_positive_rate=0.9)
    target = label_shift_gaussians(target_key, n=config.n, target_positive_rate=rate)
    model = LogisticRegression().fit(np.asarray(source.x)[:, None], np.asarray(source.labels))
    log_probs = model.predict_log_proba(np.asarray(target.x)[:, None])
    labels = np.asarray(target.labels)
    nu = np.bincount(labels, minlength=2) / len(labels)
    predictions = {
        "naive": log_probs.argmax(1),
        "OTTER": otter.solve(log_probs, nu).assignment,
        "entropic, 1 nat": otter.solve(log_probs, nu, epsilon=1.0).assignment,
        "Bayes": np.asarray(target.target_log_probs).argmax(1),
    }
    return {name: float(np.mean(np.asarray(predicted) == labels)) for name, predicted in predictions.items()}


def gaussians(config: Gaussians, folder: RunFolder) -> None:
    """Average and worst-group accuracy against insight noise: all repeats in one compiled program."""

    def trial(key: jax.Array, noise: jax.Array) -> dict[str, jax.Array]:
        problem = roboshot_gaussians(key, n_per_group=config.n_per_group, insight_noise=noise)
        edited = roboshot.edit_embeddings(problem.x, harmful=problem.harmful, helpful=problem.helpful)
        figures = {}
        for name, x in (("zero-shot", problem.x), ("RoboShot", edited)):
            predicted = jnp.argmax(x @ problem.class_vectors.T, axis=1)
            groups = evaluate.group_accuracies(problem.labels, predicted, problem.groups, n_groups=4)
            figures[f"{name}, average"] = evaluate.micro_average(groups)
            figures[f"{name}, worst group"] = evaluate.worst_group_accuracy(groups)
        return figures

    keys = jax.random.split(jax.random.key(config.seed), config.repeats)
    study = jax.jit(lambda noise: jax.lax.map(lambda key: trial(key, noise), keys))
    columns: dict[str, list[tuple[float, float, float]]] = {}
    for noise in config.insight_noise:
        row = folder.cached(f"noise {noise}", lambda noise=noise: study(jnp.float32(noise)))
        for name, values in row.items():
            columns.setdefault(name, []).append(bounds(evaluate.seed_interval(np.array(values))))
    table = Table(["insight noise", *(Column(name, percent=True) for name in columns)], title="Four Gaussians")
    for i, noise in enumerate(config.insight_noise):
        table.add(f"{noise:g}", *(rows[i] for rows in columns.values()))
    document = folder.document("RoboShot on four Gaussians")
    document.text(f"Mean and 95 % t interval over {config.repeats} draws of {4 * config.n_per_group} examples.")
    document.table(table)
    bands = {name: plot.Band(*(100 * np.array(rows).T)) for name, rows in columns.items()}
    document.figure("noise", plot.lines(config.insight_noise, bands, xlabel="insight noise", ylabel="accuracy (%)"))
    document.write()


def next_class(config: NextClass, folder: RunFolder) -> None:
    """Size of the locus against the number of observed classes."""
    trials = [folder.cached(f"trial {i}", lambda i=i: grow(config, i)) for i in range(config.trials)]
    document = folder.document("Choosing the next class to observe")
    document.text(
        f"Random trees of {config.nodes} nodes, {config.start} observed classes to begin with, {config.trials} trials. "
        "The locus is the set of classes that Loki can predict."
    )
    observed = list(range(config.start, config.start + config.steps + 1))
    table = Table(["observed", Column("Loki's choice"), Column("random choice")], title="Size of the locus")
    curves = {name: [bounds(row) for row in _intervals(trials, name)] for name in ("farthest", "random")}
    for i, m in enumerate(observed):
        table.add(m, curves["farthest"][i], curves["random"][i])
    document.table(table)
    bands = {name: plot.Band(*np.array(rows).T) for name, rows in curves.items()}
    document.figure("locus", plot.lines(observed, bands, xlabel="observed classes", ylabel="size of the locus"))
    document.write()


def grow(config: NextClass, trial: int) -> dict[str, list[int]]:
    """Sizes of the locus as classes are added, by Loki's rule and at random."""
    rng = np.random.default_rng([config.seed, trial])
    tree = TreeMetric([(i, int(rng.integers(0, i)), 1.0) for i in range(1, config.nodes)])
    start = [tree.classes[i] for i in rng.choice(config.nodes, config.start, replace=False)]
    order = [tree.classes[i] for i in rng.permutation(config.nodes)]
    sizes: dict[str, list[int]] = {}
    for name in ("farthest", "random"):
        observed = list(start)
        reached = locus.locus(tree, observed)
        sizes[name] = [len(reached)]
        for _ in range(config.steps):
            if len(reached) < config.nodes:
                new = (
                    next(c for c in order if c not in reached) if name == "random" else locus.next_class(tree, observed)
                )
                observed.append(new)
                reached = locus.locus(tree, observed)
            sizes[name].append(len(reached))
    return sizes


def _intervals(trials: list[dict[str, list[int]]], name: str) -> list[evaluate.Interval]:
    values = np.array([trial[name] for trial in trials], float)
    return [evaluate.seed_interval(column) for column in values.T]


if __name__ == "__main__":
    runner.main(run, "synthetic")
