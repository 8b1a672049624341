"""The Cost of Compression: what a language model still knows when it is pruned, quantised, both, and recovered.

    python -m experiments.compression synthetic_facts
    python -m experiments.compression smollm2_wikidata --facts FILE --texts FOLDER --chats FILE

Namburi et al., "The Cost of Compression: Investigating the Impact of Compression on Parametric Knowledge in Language
Models", 2023, on one model. Each point of the study is one result in the run folder, so that a run that is stopped goes
on with the next point. Dense parameters are arguments of one program for facts and one for texts: only products of
integers and an untied head compile programs of their own.
"""

import time
from typing import Any

import numpy as np

from experiments import compression_points as points
from experiments import compression_recovery as recovery
from experiments import compression_report as report
from experiments import compression_subject as subjects
from experiments import runner
from experiments.compression_config import Pretrained, Synthetic, check
from experiments.compression_points import Point
from experiments.compression_subject import Subject
from zsml_jax import compression, models
from zsml_jax.models.untied import untie
from zsml_jax.report import RunFolder, progress


def run(config: Pretrained | Synthetic, folder: RunFolder) -> None:
    """Measures the model at every point, and reports."""
    with runner.refusals():
        check(config)
        subject = subjects.load(config) if isinstance(config, Pretrained) else subjects.learn(config, folder)
        found = compression.groups(subject.pretrained)
        for name in config.groups:
            _ = found[name]
        adapters = recovery.methods(config, subject)
        calibration = subjects.calibration(config, subject, subject.pretrained)
    results = {"dense": folder.cached("dense", lambda: subjects.measure(config, subject, subject.pretrained.params))}
    budgets = points.budget_points(config, subject.pretrained)
    body = [
        *points.pruning_points(config),
        *(point for even in budgets.values() for point in even),
        *points.scheme_points(config),
        *points.combined_points(config),
    ]
    for point in progress(list(dict.fromkeys(body)), "compressing"):
        results[point.name] = at(config, subject, point, subject.pretrained, calibration, folder)
    untied = untie(subject.pretrained) if subject.pretrained.config.tied else subject.pretrained
    for point in progress(points.head_points(config), "compressing the final layer"):
        results[point.name] = at(config, subject, point, untied, None, folder)
    half = Point("all", "magnitude", config.recovered_sparsity)
    recovered = {}
    for name, method in adapters.items():
        for rate in config.learning_rates:

            def train(name: str = name, method: Any = method, rate: float = rate) -> dict[str, Any]:
                pruned = points.compress(config, half, subject.pretrained, None)
                return recovery.recover(config, subject, pruned, name, method, rate, folder)

            recovered[name, rate] = folder.cached(f"{name} at {rate:g}", train)
    report.write(config, folder, subject, results, budgets, recovered)


def at(
    config: Pretrained | Synthetic,
    subject: Subject,
    point: Point,
    pretrained: models.Pretrained,
    calibration: Any,
    folder: RunFolder,
) -> dict[str, Any]:
    """Returns what the model is worth at a point, what it takes, and how long that took; measured once."""

    def compute() -> dict[str, Any]:
        start = time.monotonic()
        compressed = points.compress(config, point, pretrained, calibration)
        size = compression.size_report(compressed.stored)
        middle = time.monotonic()
        measured = subjects.measure(config, subject, compressed.params, pretrained)
        found = {
            **measured,
            "stored_bytes": size.stored_bytes,
            "sparsity": size.effective_sparsity,
            "seconds": {"compress": middle - start, "measure": time.monotonic() - middle},
        }
        if point.group == "head":
            found["lost"] = lost_facts(subject, points.lost_words(compressed.masks))
        return found

    return folder.cached(point.name, compute)


def lost_facts(subject: Subject, is_lost: np.ndarray) -> float:
    """Returns the share of the facts none of whose answers the head can write."""
    tokenizer = subject.pretrained.tokenizer
    assert tokenizer is not None, "facts were read with it"
    first = len(tokenizer.encode_plain("the"))
    tokens = [[tokenizer.encode_plain(f"the {word}")[first] for word in fact.answers] for fact in subject.facts]
    return float(np.mean([is_lost[own].all() for own in tokens]))


if __name__ == "__main__":
    runner.main(run, "compression")
