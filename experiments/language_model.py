"""Language models on text files: a small GPT-2 or Mamba from scratch, or how well a pretrained one predicts them.

python -m experiments.language_model gpt2_books --texts ../shared/data/books
python -m experiments.language_model smollm2_speeches --texts ../shared/data/books/sotu
"""

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import corpus as corpora
from experiments import language_model_report as report
from experiments import runner
from experiments.corpus import Corpus
from experiments.language_model_config import Evaluation, Training, check
from experiments.scoring import Scorer
from zsml_jax import data, evaluate, models
from zsml_jax.models import Pretrained, Tokenizer
from zsml_jax.models.generate import generate
from zsml_jax.models.initialise import initialise
from zsml_jax.models.tokenizer import load_tokenizer
from zsml_jax.models.tokenizer_training import train_byte_bpe
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, Evaluator, fit, optimizer, schedules, sharding, sharding_tables, throughput
from zsml_jax.typing import Array, Key, Params


def run(config: Training | Evaluation, folder: RunFolder) -> None:
    """Trains a model, or evaluates one, and reports its bits per byte beside those of compressors."""
    with runner.refusals():
        check(config)
        corpus = corpora.load_corpus(
            config.texts, config.passage_chars, config.held_out_every, unwrap_lines=config.unwrap_lines
        )
    if isinstance(config, Evaluation):
        evaluate_pretrained(config, corpus, folder)
    else:
        train(config, corpus, folder)


def train(config: Training, corpus: Corpus, folder: RunFolder) -> None:
    """Trains a model from scratch, saves it in the hub's layout, scores the held-out text and samples."""
    with runner.refusals():
        tokenizer = learned_tokenizer(config, corpus, folder)
        fresh = initialise(hub_fields(config, tokenizer), key=jax.random.key(config.seed), tokenizer=tokenizer)
        end = end_token(tokenizer)
        passages = data.token_store.tokenize(corpus.train, lambda text: [end, *tokenizer.encode_plain(text)])
        # One stream, so that a passage's last token has the end token as its target, and that one the next passage.
        store = dataclasses.replace(passages, starts=passages.starts[[0, -1]])
        rows = {"length": config.length, "batch_size": config.batch_size, "pad_token": end}
        batches = data.token_batches(store, seed=config.seed, **rows)
        mesh = None if config.mesh is None else sharding.make_mesh(config.mesh)
        rules = sharding.REPLICATED if mesh is None else sharding_tables.rules_for(fresh.model_type)
    scorer = Scorer(fresh, start_token=end, context=config.length, stride=(config.length + 1) // 2)
    measure_peak = lambda: throughput.peak_flops(jnp.float32)
    peak = folder.cached("peak before", measure_peak)
    options = {"every": config.checkpoint_every, "keep": 2, "config": config}
    with Checkpointer(folder.checkpoints / "training", **options) as checkpoints, contextlib.closing(batches):
        result = fit(
            functools.partial(next_token_loss, scorer.apply_fn),
            fresh.params,
            batches,
            optimizer=_optimizer(config),
            steps=config.steps,
            key=jax.random.key(config.seed),
            mesh=mesh,
            rules=rules,
            checkpoints=checkpoints,
            evaluators=[Evaluator("held_out", scorer.glimpse(corpus), every=config.report_every)],
            folder=folder,
            log_every=config.report_every,
            units=lambda batch: batch["loss_mask"].sum(),
            unit="tokens",
            peak_flops=peak,
        )
    params = result.params if mesh is None else _on_one_host(result.params, mesh)
    trained = dataclasses.replace(fresh, params=params)
    models.save(trained, folder.path / "model")
    sizes = report.Sizes(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        train_bytes=sum(len(passage.encode()) for passage in corpus.train),
        train_tokens=int(store.lengths.sum()),
        peak_flops=(peak, folder.cached("peak after", measure_peak)),
    )
    scores = scorer.held_out(params, corpus, folder)
    samples = folder.cached("samples", lambda: sample(config, trained, tokenizer))
    baselines = folder.cached("baselines", lambda: corpora.baselines(corpus))
    report.write_training(config, folder, scores, baselines, sizes, samples)


def evaluate_pretrained(config: Evaluation, corpus: Corpus, folder: RunFolder) -> None:
    """Scores the held-out passages with a pretrained model."""
    with runner.refusals():
        pretrained = models.load(config.model)
        start = None if pretrained.tokenizer is None else pretrained.tokenizer.token_id(config.start_token)
        if start is None:
            raise ValueError(f"start_token must be a token of {config.model}, got {config.start_token!r}")
        context = min(config.context, pretrained.config.max_length)
        windows = {"context": context, "stride": min(config.stride, context), "batch_size": config.batch_size}
        scorer = Scorer(pretrained, start_token=start, **windows)
    scores = scorer.held_out(pretrained.params, corpus, folder)
    baselines = folder.cached("baselines", lambda: corpora.baselines(corpus))
    report.write_evaluation(config, folder, scores, baselines)


def next_token_loss(
    apply_fn: Callable[[Params, Array], Array], params: Params, batch: Mapping[str, Array], key: Key
) -> tuple[Array, dict[str, Array]]:
    """Returns the mean negative log-likelihood of the tokens that have a target, in nats."""
    del key
    nats_BxT = evaluate.next_token_nats(apply_fn(params, batch["tokens"]), batch["targets"])
    mask_BxT = batch["loss_mask"]
    return (nats_BxT * mask_BxT).sum() / jnp.maximum(mask_BxT.sum(), 1), {}


def hub_fields(config: Training, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the ``config.json`` of the model to train."""
    end = end_token(tokenizer)
    fields = {"vocab_size": tokenizer.vocab_size, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    if config.architecture == "mamba":
        return fields | {"model_type": "mamba", "hidden_size": config.width, "num_hidden_layers": config.layers}
    shape = {"n_embd": config.width, "n_layer": config.layers, "n_head": config.heads, "n_positions": config.length}
    return fields | {"model_type": "gpt2", **shape}


def learned_tokenizer(config: Training, corpus: Corpus, folder: RunFolder) -> Tokenizer:
    """Learns the tokenizer from the training passages; a resumed run reads the one that it learned before."""
    target = folder.path / "tokenizer"
    if not target.exists():
        tokenizer = train_byte_bpe(corpus.train, vocab_size=config.vocab_size)
        work = Path(tempfile.mkdtemp(prefix=".tokenizer-", dir=folder.path))
        tokenizer.save(work)
        os.rename(work, target)
    # Learned or read, the tokenizer is the one of the file.
    return load_tokenizer(target, model_type=config.architecture, max_length=sys.maxsize)


def end_token(tokenizer: Tokenizer) -> int:
    """Returns the id of the token that stands before and after each passage."""
    end = tokenizer.token_id(tokenizer.special["eos_token"])
    assert end is not None, "the tokenizer was made with an end token"
    return end


def sample(config: Training, trained: Pretrained, tokenizer: Tokenizer) -> list[str]:
    """Returns a text for each prompt, the prompt included."""
    end = end_token(tokenizer)
    rows = [[end, *tokenizer.encode_plain(prompt)] for prompt in config.prompts]
    longest = max(map(len, rows))
    tokens, mask = np.full((2, len(rows), longest), [[[end]], [[0]]], np.int32)
    for i, row in enumerate(rows):
        tokens[i, longest - len(row) :], mask[i, longest - len(row) :] = row, 1
    room = config.sample_tokens if trained.module.max_tokens is None else trained.module.max_tokens - longest
    generation = generate(
        trained,
        tokens,
        attention_mask=mask,
        max_new_tokens=max(1, min(config.sample_tokens, room)),
        sampling=models.Sampling(temperature=config.temperature, top_p=config.top_p),
        key=jax.random.key(config.seed),
    )
    return [prompt + text for prompt, text in zip(config.prompts, generation.texts(tokenizer), strict=True)]


def _on_one_host(params: Params, mesh: Mesh) -> Params:
    """All of the parameters in the memory of each process."""
    return jax.device_get(jax.device_put(params, NamedSharding(mesh, PartitionSpec())))


def _optimizer(config: Training) -> optimizer.PathOptimizer:
    rate = schedules.warmup_cosine(
        config.learning_rate, steps=config.steps, warmup_steps=config.warmup_steps, end=config.learning_rate / 10
    )
    # Mamba's rates of decay and its skip connection are not decayed, as in its authors' training.
    no_decay = f"{optimizer.NO_DECAY}|.*/(A_log|D)"
    adamw = optimizer.adamw(rate, b2=0.95, weight_decay=config.weight_decay, no_decay=no_decay)
    return optimizer.by_path([(".*", adamw)], clip_norm=config.clip_norm)


if __name__ == "__main__":
    runner.main(run, "language_model")
