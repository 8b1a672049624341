"""Reports of the language model experiment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.language_model_config import Evaluation, Training
from experiments.otter import bounds
from experiments.scoring import Scores
from zsml_jax import evaluate
from zsml_jax.report import Column, RunFolder, Table, plot
from zsml_jax.report.document import Document


class Sizes(NamedTuple):
    """How much was trained, on how much, and how fast a matrix product can be here."""

    parameters: int
    train_bytes: int
    train_tokens: int
    peak_flops: tuple[float, float]


def write_training(
    config: Training,
    folder: RunFolder,
    scores: Scores,
    baselines: Mapping[str, float],
    sizes: Sizes,
    samples: Sequence[str],
) -> None:
    """Writes the report of a training run."""
    name = {"gpt2": "GPT-2", "mamba": "Mamba"}[config.architecture]
    document = folder.document(f"A small {name} on {_count(sizes.train_bytes)} bytes of text")
    curve = _curve(folder)
    bytes_per_token = sizes.train_bytes / sizes.train_tokens
    seen = config.steps * config.batch_size * config.length
    rows = [row for row in curve if "tokens_per_second" in row]
    speed = float(np.median([row["tokens_per_second"] for row in rows]))
    # Other work on the machine may have disturbed one of the two measurements of the peak, so the larger one counts.
    peak = max(sizes.peak_flops)
    used = float(np.median([row["model_flops_utilisation"] for row in rows])) * sizes.peak_flops[0] / peak
    document.text(
        f"{sizes.parameters / 1e6:.2f} M parameters, {config.layers} layers of width {config.width}, a byte-level BPE "
        f"of {config.vocab_size:,} tokens ({bytes_per_token:.2f} bytes a token) learned from the training passages. "
        f"{config.steps} steps of {config.batch_size} rows of {config.length} tokens: {_count(seen)} tokens, "
        f"{seen / sizes.train_tokens:.1f} times the training text."
    )
    document.text(
        f"Speed: {speed:,.0f} tokens a second; model FLOPs utilisation {100 * used:.0f} % of the {peak / 1e9:,.0f} "
        "GFLOP/s that a large float32 matrix product reached here (medians of the reports)."
    )
    _results(document, f"{name}, {sizes.parameters / 1e6:.2f} M parameters", scores, baselines)
    steps = sorted({row["step"] for row in curve})
    losses = {row["step"]: row["loss"] / np.log(2) / bytes_per_token for row in curve if "loss" in row}
    held_out = {row["step"]: row["held_out/bits_per_byte"] for row in curve if "held_out/bits_per_byte" in row}
    if both := [step for step in steps if step in losses and step in held_out]:
        curves = {
            "training batch": [losses[step] for step in both],
            "held-out, beginnings of passages": [held_out[step] for step in both],
        }
        figure = plot.lines(both, curves, xlabel="step", ylabel="bits per byte")
        document.figure("curve", figure, "Bits per byte as the model learns")
    document.heading("Samples")
    document.text(f"Temperature {config.temperature:g}, top-p {config.top_p:g}; the prompt is part of each.")
    for text in samples:
        document.text("\n".join(f"> {line}  " for line in text.strip().splitlines()) or "> (ended at once)")
    model = folder.path / "model"
    document.text(f"More of them:\n\n```sh\npython -m experiments.generate --model {model} --raw\n```")
    document.write()


def write_evaluation(config: Evaluation, folder: RunFolder, scores: Scores, baselines: Mapping[str, float]) -> None:
    """Writes the report of an evaluation."""
    document = folder.document(f"How well {config.model} predicts {_count(scores.num_bytes.sum())} bytes of text")
    document.text(
        f"{len(scores.nats)} passages of at most {config.passage_chars:,} characters, "
        f"{scores.num_bytes.sum() / scores.num_tokens.sum():.2f} bytes a token. Windows of {config.context:,} tokens, "
        f"{config.stride:,} apart; each token is scored once. Nothing is trained, and nothing is known of whether the "
        "model was trained on these texts."
    )
    _results(document, config.model, scores, baselines)
    bits = scores.nats / np.log(2) / scores.num_bytes
    figure = plot.lines(
        range(1, len(bits) + 1), {config.model: bits}, xlabel="held-out passage, in the order of the files",
        ylabel="bits per byte",
    )  # fmt: skip
    document.figure("passages", figure, "Bits per byte of each passage")
    document.write()


def _results(document: Document, name: str, scores: Scores, baselines: Mapping[str, float]) -> None:
    """The table of bits per byte, and the perplexity."""
    table = Table(["method", Column("bits per byte", digits=3, best="min")], title="Held-out text")
    for method, bits in baselines.items():
        table.add(method, bits)
    key = jax.random.key(0)
    if len(scores.nats) > 1:
        bits = bounds(evaluate.bootstrap_interval(evaluate.bits_per_byte, scores.nats, scores.num_bytes, key=key))
        interval = evaluate.bootstrap_interval(evaluate.perplexity_per_token, scores.nats, scores.num_tokens, key=key)
        value, low, high = bounds(interval)
        per_token = f"{value:.2f} [{low:.2f}, {high:.2f}]"
        how = f" The intervals are 95 % bootstrap intervals over the {len(scores.nats)} held-out passages."
    else:
        bits = float(evaluate.bits_per_byte(scores.nats, scores.num_bytes))
        per_token = f"{float(evaluate.perplexity_per_token(scores.nats, scores.num_tokens)):.2f}"
        how = ""
    table.add(name, bits)
    document.table(table)
    document.text(
        f"Perplexity {per_token} per token, over {scores.num_tokens.sum():,} tokens or {scores.num_bytes.sum():,} "
        f"bytes of {len(scores.nats)} passages.{how}"
    )


def _curve(folder: RunFolder) -> list[dict[str, float]]:
    """What was logged, each kind of report once a step: a resumed run may have logged a step again."""
    rows = {(row["step"], "loss" in row): row for row in folder.metrics() if "step" in row}
    return list(rows.values())


def _count(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"
