"""What the compression experiment studies: a model, the facts that it is asked, and texts."""

import contextlib
import dataclasses
import gzip
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments import corpus as corpora
from experiments.compression_config import Pretrained, Synthetic
from zsml_jax import compression, data, evaluate, models
from zsml_jax.evaluate import facts as reading
from zsml_jax.evaluate import lama
from zsml_jax.evaluate.facts import Fact
from zsml_jax.evaluate.text_scores import start_id
from zsml_jax.models.chat_template import render_chat
from zsml_jax.models.initialise import initialise
from zsml_jax.models.tokenizer_training import train_byte_bpe
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, fit, optimizer, schedules
from zsml_jax.typing import Array, Key, Params

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"


class Subject(NamedTuple):
    """A model and what it is judged by.

    Attributes:
      pretrained: a causal language model.
      facts: cloze facts, whose answers are one token of the model.
      texts: by name, texts whose perplexity is measured.
      validation: texts that choose the rate of a recovery.
      rows: what a recovery learns from: ``tokens``, one row ``(t,)`` each.
      stream: token ids for calibration, from the same texts as the rows.
    """

    pretrained: models.Pretrained
    facts: list[Fact]
    texts: dict[str, list[str]]
    validation: list[str]
    rows: list[dict[str, np.ndarray]]
    stream: np.ndarray


def load(config: Pretrained) -> Subject:
    """Loads a language model, facts of Wikidata, and texts.

    Raises:
      ValueError: if the model is no causal language model with a tokenizer, or there are too few facts or texts.
    """
    for name in ("facts", "texts", "chats"):
        if not getattr(config, name):
            raise ValueError(f"{name} must name files: --{name} PATH")
    pretrained = models.load(config.model)
    tokenizer = pretrained.tokenizer
    if tokenizer is None or not hasattr(pretrained.module, "init_cache"):
        raise ValueError(f"model must be a causal language model with a tokenizer, got {config.model}")
    everything = reading.read_qa_wikidata(config.facts)
    known = set(lama.common_vocabulary([tokenizer], (word for fact in everything for word in fact.answers)))
    single = [fact for fact in everything if known.issuperset(fact.answers)]
    if len(single) < config.num_facts:
        raise ValueError(f"num_facts must be at most {len(single)}, those of one token, got {config.num_facts}")
    corpus = corpora.load_corpus(config.texts, config.passage_chars, 10, unwrap_lines=True)
    learned = [text for i, text in enumerate(corpus.train) if i % 9]
    encode, start = tokenizer.encode_plain, start_id(tokenizer)
    stream = np.array([token for text in learned for token in [start, *encode(text)]], np.int32)
    validation = corpus.train[::9][: max(1, config.num_passages // 2)]
    texts = {"speeches": corpus.held_out[: config.num_passages], "chat": _chats(config, tokenizer)}
    facts = reading.balanced(single, config.num_facts, seed=config.seed)
    return Subject(pretrained, facts, texts, validation, cut(stream, config.length), stream)


def learn(config: Synthetic, folder: RunFolder) -> Subject:
    """Trains a small transformer on made-up facts until it knows them; an interrupted run goes on."""
    facts, sentences = synthetic_facts(config)
    tokenizer = train_byte_bpe(sentences, vocab_size=6000)
    hub = {
        "model_type": "gpt2", "vocab_size": tokenizer.vocab_size, "n_embd": config.width, "n_layer": config.layers,
        "n_head": config.heads, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    fresh = initialise(hub, key=jax.random.key(config.seed), tokenizer=tokenizer)
    plain = [tokenizer.encode_plain(sentence) for sentence in sentences]
    # Probes begin with the sentence and perplexity with the end token; shorter rows end in it as well.
    ids = [*([0, *row] for row in plain), *plain]
    longest = max(map(len, ids))
    rows = [{"tokens": np.array([*row, *[0] * (longest - len(row))], np.int32)} for row in ids]
    rate = schedules.warmup_cosine(config.learning_rate, steps=config.steps, warmup_steps=config.steps // 20)
    batches = data.batches(rows, batch_size=len(plain), seed=config.seed, threads=0)
    options: dict[str, Any] = {"every": config.checkpoint_every, "keep": 1, "config": config}
    with Checkpointer(folder.checkpoints / "facts", **options) as checkpoints, contextlib.closing(batches):
        result = fit(
            lambda params, batch, key: next_token_loss(fresh.apply(params, batch["tokens"]), batch["tokens"], key),
            fresh.params,
            batches,
            optimizer=optimizer.by_path([(".*", optimizer.adamw(rate, weight_decay=0.01))]),
            steps=config.steps,
            key=jax.random.key(config.seed),
            checkpoints=checkpoints,
            folder=folder,
            log_every=50,
        )
    trained = dataclasses.replace(fresh, params=jax.device_get(result.params))
    stream = np.array([token for row in ids for token in row], np.int32)
    texts = {"sentences": [" ".join(sentences[i : i + 4]) for i in range(0, len(sentences), 4)]}
    return Subject(trained, facts, texts, texts["sentences"], rows, stream)


def synthetic_facts(config: Synthetic) -> tuple[list[Fact], list[str]]:
    """Returns made-up facts, every subject with an object of each relation, and the sentences that state them."""
    rng = np.random.default_rng(config.seed)
    names: dict[str, None] = {}
    while len(names) < config.relations * (1 + config.objects) + config.subjects:
        pick = lambda letters: letters[rng.integers(len(letters))]
        names["".join(pick(_CONSONANTS) + pick(_VOWELS) for _ in range(3))] = None
    words = iter(names)
    subjects = [next(words) for _ in range(config.subjects)]
    facts, sentences = [], []
    for _ in range(config.relations):
        relation, objects = next(words), [next(words) for _ in range(config.objects)]
        for i, subject in enumerate(rng.permutation(subjects).tolist()):
            answer = objects[i % config.objects]
            facts.append(Fact(f"The {relation} of {subject} is [MASK].", (answer,), relation, subject))
            sentences.append(f"The {relation} of {subject} is {answer}.")
    return facts, sentences


def cut(stream: np.ndarray, length: int) -> list[dict[str, np.ndarray]]:
    """Cuts a stream of tokens into rows; what is left over is not used."""
    return [{"tokens": stream[start : start + length]} for start in range(0, len(stream) - length + 1, length)]


def next_token_loss(logits: Array, tokens: Array, key: Key) -> tuple[Array, dict[str, Array]]:
    """Returns the mean negative log-likelihood of all tokens but the first of each row, in nats."""
    del key
    return jnp.mean(evaluate.next_token_nats(logits[:, :-1], tokens[:, 1:])), {}


def calibration(config: Pretrained | Synthetic, subject: Subject, pretrained: models.Pretrained) -> Any:
    """Returns the calibration data, as many sequences as there are."""
    block = min(config.calibration_length, pretrained.config.max_length)
    return compression.Calibration.of_stream(
        pretrained, subject.stream, block=block, limit=config.calibration_sequences
    )


def measure(
    config: Pretrained | Synthetic, subject: Subject, params: Params, pretrained: models.Pretrained | None = None
) -> dict[str, Any]:
    """Returns the rank of each fact's answer among all tokens, and the nats of each text."""
    pretrained = subject.pretrained if pretrained is None else pretrained
    found = lama.probe(pretrained, subject.facts, params=params)
    assert len(found.ranks) == len(subject.facts), "answers are one token each"
    return {
        "ranks": found.ranks,
        "nats": {name: text_nats(config, pretrained, params, texts) for name, texts in subject.texts.items()},
    }


def text_nats(
    config: Pretrained | Synthetic, pretrained: models.Pretrained, params: Params, texts: list[str]
) -> list[float]:
    """Returns the negative log-likelihood of each text."""
    context = min(config.context, pretrained.config.max_length)
    return evaluate.perplexity(pretrained, texts, params=params, context=context, batch_size=4).nats.tolist()


def _chats(config: Pretrained, tokenizer: models.Tokenizer) -> list[str]:
    with gzip.open(config.chats, "rt") if config.chats.endswith(".gz") else open(config.chats) as file:
        rows = [json.loads(line) for line in file]
    found = []
    for row in rows[: config.num_chats]:
        asked = f"{row['instruction']}\n{row.get('input', '')}".strip()
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]
        has_template = tokenizer.chat_template is not None
        found.append(
            render_chat(tokenizer, turns, add_generation_prompt=False) if has_template else f"{asked}\n{row['output']}"
        )
    return found
