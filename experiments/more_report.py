"""Reports of the MoRe experiment: who wins, with which parameters, memory and time."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.more_classifier import Splits
from experiments.more_config import Classification, Instruction, Tuning
from experiments.more_instruction import Task
from experiments.more_methods import Contender, describe
from experiments.otter import bounds
from zsml_jax import evaluate
from zsml_jax.data.dataset import Dataset
from zsml_jax.report import Column, Estimate, RunFolder, Table, plot
from zsml_jax.report.document import Document

#: What papers report of these methods beside one another: the task, the method, trained parameters, the figure. None is
#: of MiniLM, SmolLM2 or these data sets. CoLA is RoBERTa-large (the MoRe repository's demos/show_hp.ipynb, Matthews
#: correlation on the validation set it was tuned on, one seed; its LoRA adapts query and value only). GSM8K is
#: Llama-3.2-3B (the peft library's method_comparison); its GraLoRA with 2 blocks is MoRe's N = 2 up to a permutation.
PUBLISHED = (
    ("CoLA", "MoRe, 4 blocks of rank 4", 589_824, 0.6991),
    ("CoLA", "LoRA of rank 8", 786_432, 0.683),
    ("CoLA", "LoRA of rank 4", 393_216, 0.6505),
    ("GSM8K", "GraLoRA of rank 32, 2 blocks", 9_180_000, 0.495),
    ("GSM8K", "LoRA of rank 32", 9_180_000, 0.478),
    ("GSM8K", "DoRA of rank 32", 9_290_000, 0.469),
    ("GSM8K", "full fine-tuning", 3_210_000_000, 0.472),
)

#: Results, contenders and costs by the method's name.
Results = Mapping[str, Mapping[str, Any]]
Methods = Mapping[Any, Contender]


def write_classification(
    config: Classification, folder: RunFolder, splits: Splits, methods: Methods, results: Results, costs: Results
) -> None:
    """Writes the report of sentence classifiers."""
    document = folder.document(f"MoRe and others on {config.dataset}")
    document.text(
        f"{config.model}, mean-pooled, with a linear head over {len(splits.test_set.class_names)} classes that every "
        f"method trains in full. {len(splits.train.labels):,} training, {len(splits.validation.labels):,} validation "
        f"and {len(splits.test.labels):,} test texts; {100 * splits.share_cut:.1f} % of them lose what comes after "
        f"{config.length} tokens. {_recipe(config)} The head's rate is {config.head_factor:g} times that of the "
        "grid for all methods, the probe included, which has only the head."
    )
    correct = _results(document, config, splits.test_set, methods, results, costs)
    groups = splits.test_set.groups
    if groups is not None:
        names = splits.test_set.group_names
        bars = {
            group: {
                name: _over_seeds(right[:, groups == g].mean(axis=1)) for name, right in correct.items()
            }
            for g, group in enumerate(names) if (groups == g).any()
        }  # fmt: skip
        figure = plot.grouped_bars(bars, baseline=False)
        document.figure("groups", figure, "Test accuracy in each group, with t intervals over seeds")
    _end(document, folder, config, methods, correct, "trials")


def write_instruction(
    config: Instruction,
    folder: RunFolder,
    task: Task,
    methods: Methods,
    results: Results,
    costs: Results,
    untrained: np.ndarray,
) -> None:
    """Writes the report of the language model."""
    document = folder.document(f"MoRe and others: {config.model} answers {config.dataset}")
    answers = ", ".join(repr(answer) for answer in config.answers or task.test_set.class_names)
    document.text(
        f"The prompt is {config.prompt!r}, the answer one of {answers}. The loss counts the tokens of the answer and "
        f"its end only. A text is right if greedy decoding writes its answer exactly, the end included. "
        f"{len(task.train):,} training texts ({task.left_out} of more than {config.length} tokens are left out), "
        f"{len(task.validation.labels):,} for validation and {len(task.test.labels):,} to test. {_recipe(config)} "
        f"Before training {100 * (untrained == task.test.labels).mean():.1f} % of the test texts are answered right."
    )
    correct = _results(document, config, task.test_set, methods, results, costs)
    _end(document, folder, config, methods, correct, "seed")


def loss_curves(folder: RunFolder) -> dict[str, dict[int, Any]]:
    """Returns the logged losses by part of the run and step; a step that was done again counts once."""
    curves: dict[str, dict[int, Any]] = {}
    part = ""
    for row in folder.metrics():
        part = row.get("part", part)
        if "loss" in row:
            curves.setdefault(part, {})[row["step"]] = row["loss"]
    return curves


def _recipe(config: Tuning) -> str:
    rates = ", ".join(f"{rate:g}" for rate in config.learning_rates)
    seen = config.steps * config.batch_size
    full = f" Full fine-tuning has {config.full_factor:g} times these rates for the model." * ("full" in config.methods)
    return (
        f"AdamW, {config.steps} steps of {config.batch_size} texts ({seen:,}), warm-up and half a cosine, the weights "
        f"of the last step. Every method chooses its learning rate from the same grid, {rates}, by the accuracy on the "
        f"validation split after one trial each; then it is trained at that rate with {config.seeds} other seeds. The "
        "test split chooses nothing: no rate, no step and no method. The rank of LoRA and DoRA is the largest whose "
        f"parameters do not exceed those of MoRe with {config.blocks} blocks of rank {config.block_rank}; adapted are "
        f"{', '.join(config.targets)}. LoRA's and DoRA's alpha is twice the rank; MoRe has no scale, as published."
        f"{full}"
    )


def _results(
    document: Document, config: Tuning, test_set: Dataset, methods: Methods, results: Results, costs: Results
) -> dict[str, np.ndarray]:
    """Writes the tables; returns which test texts each trial has right, ``(seeds, n)``, by method."""
    correct = {name: np.asarray(result["predictions"]) == test_set.labels for name, result in results.items()}
    key = jax.random.key(0)
    table = Table(
        [
            "method",
            "size",
            "parameters",
            "with the head",
            Column("test accuracy, t over seeds", percent=True, best="max"),
            Column("the same, bootstrap over texts", percent=True),
            "rate",
            Column("memory (MB)", digits=0, best="min"),
            Column("step (ms)", digits=0, best="min"),
        ],
        title=f"{config.seeds} seeds, {len(test_set)} test texts",
    )
    for name, right in correct.items():
        method = methods[name]
        table.add(
            name,
            describe(method.method),
            method.parameters,
            method.parameters + method.head_parameters,
            _over_seeds(right.mean(axis=1)),
            Estimate(*bounds(evaluate.bootstrap_interval(jnp.mean, right.mean(axis=0), key=key))),
            f"{results[name]['rate']:g}",
            costs[name]["bytes"] / 1e6,
            1e3 * costs[name]["median"],
        )
    document.table(table)
    document.text(
        f"Memory is what the compiler plans for a step of one trial alone; full fine-tuning keeps the base beside its "
        f"copy here, as all methods do. Time is the median of {config.timed_steps} such steps, on this machine as busy "
        "as it was then."
    )
    _verdict(document, correct)
    rates = Table(["method", *(Column(f"{rate:g}", percent=True) for rate in config.learning_rates)],
                  title="Validation accuracy at each rate of the grid, one trial")  # fmt: skip
    for name, result in results.items():
        rates.add(name, *result["validation"])
    document.table(rates)
    ends = (min(config.learning_rates), max(config.learning_rates))
    if at_end := [name for name, result in results.items() if result["rate"] in ends]:
        document.text(
            f"At an end of the grid, so that a wider one might do better: {', '.join(at_end)}. None was given one."
        )
    return correct


def _verdict(document: Document, correct: Mapping[str, np.ndarray]) -> None:
    """Says who wins, and by how much MoRe differs from each of the others on the same texts."""
    means = {name: float(right.mean()) for name, right in correct.items()}
    best = max(means, key=lambda name: means[name])
    document.text(f"The highest mean accuracy on the test split is that of {best}, {100 * means[best]:.1f} %.")
    if "MoRe" not in correct or len(correct) < 2:
        return
    table = Table(["MoRe minus", Column("points", digits=1), "clear"], title="Differences on the same test texts")
    for name in correct:
        if name != "MoRe":
            both = [(right.mean(axis=0),) for right in (correct["MoRe"], correct[name])]
            difference = bounds(evaluate.paired_difference_interval(jnp.mean, *both, key=jax.random.key(0)))
            value, low, high = (100 * part for part in difference)
            table.add(name, Estimate(value, low, high), low > 0 or high < 0)
    document.table(table)
    document.text(
        "In points of accuracy, seeds averaged, with 95 % paired bootstrap intervals over the texts; these know "
        "nothing of the luck of the seeds. A difference is clear where its interval leaves out zero."
    )


def _end(
    document: Document,
    folder: RunFolder,
    config: Tuning,
    methods: Methods,
    correct: Mapping[str, np.ndarray],
    part: str,
) -> None:
    """Draws the figures, sets the published figures beside, and writes the file."""
    points = {
        name: (method.parameters + method.head_parameters, _over_seeds(correct[name].mean(axis=1)))
        for name, method in methods.items()
    }
    figure = plot.scatter(points, xlabel="trained parameters, the head's included", ylabel="test accuracy (%)")
    document.figure("parameters", figure, "Accuracy against trained parameters, with t intervals over seeds")
    curves = loss_curves(folder)
    steps = range(config.report_every, config.steps + 1, config.report_every)
    of = lambda name: [curve for key, curve in curves.items() if key.startswith(f"{name} {part}")]
    means = {
        name: [float(np.mean([np.mean(curve[step]) for curve in of(name)])) for step in steps]
        for name in methods
        if of(name) and all(step in curve for curve in of(name) for step in steps)
    }
    if means and len(steps) > 1:
        losses = plot.lines(steps, means, xlabel="step", ylabel="training loss (nats)")
        document.figure("losses", losses, "Training loss at the chosen rate, mean over seeds")
    document.heading("Published, of other models and data")
    table = Table(["data", "method", "parameters", Column("figure", percent=True)])
    for row in PUBLISHED:
        table.add(*row)
    document.table(table)
    document.text(
        "CoLA: RoBERTa-large, Matthews correlation on the validation set that also tuned it, one seed, from the MoRe "
        "repository's notebook; LoRA adapts query and value only there. GSM8K: Llama-3.2-3B trained on MetaMathQA, "
        "from the peft library's comparison; GraLoRA of 2 blocks is MoRe of 2 blocks up to a permutation. No paper "
        "reports these methods on the model and data above."
    )
    document.write()


def _over_seeds(accuracies: np.ndarray) -> Estimate:
    return Estimate(*bounds(evaluate.seed_interval(accuracies)))
