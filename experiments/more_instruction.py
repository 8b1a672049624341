"""The language model of the MoRe experiment: it is trained to answer with a label, and judged by what it writes."""

import contextlib
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.more_config import Instruction, MethodName
from experiments.more_costs import measure
from experiments.more_methods import Contender, rules
from zsml_jax import data, evaluate, peft
from zsml_jax.data.dataset import Dataset
from zsml_jax.models import Pretrained
from zsml_jax.models.generate import generate
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, NotFiniteError, fit, optimizer
from zsml_jax.typing import Array, Key, PyTree

#: Prompts that are answered at a time.
_PROMPTS = 100


class Split(NamedTuple):
    """Prompts as token ids of any length, and the class of each, ``(n,)``."""

    prompts: list[list[int]]
    labels: np.ndarray


class Task(NamedTuple):
    """The instruction task.

    Attributes:
      train: rows for :func:`zsml_jax.data.batches`: ``tokens``, their ``mask``, and ``is_answer``, 1 at the tokens that
        the loss counts, each ``(t,)``.
      left_out: the number of training texts that were too long.
      validation: what chooses the learning rate.
      test: what is reported.
      test_set: the test set, for its names.
      answers: the token ids of the answer to each class, with the end token.
    """

    train: list[dict[str, np.ndarray]]
    left_out: int
    validation: Split
    test: Split
    test_set: Dataset
    answers: list[list[int]]


class Student:
    """A method of fine-tuning the language model.

    Args:
      config: the experiment's.
      pretrained: the language model.
      contender: the method.
    """

    def __init__(self, config: Instruction, pretrained: Pretrained, contender: Contender):
        self.config, self.pretrained, self.method = config, pretrained, contender.method
        self._run = peft.apply_fn(pretrained.apply)
        self._write = peft.generate_fn(pretrained)

    def params(self, key: Key) -> PyTree:
        """Returns the adapter and the base before the first step."""
        return {"adapter": peft.adapt(self.pretrained, self.method, key=key), "base": self.pretrained.params}

    def loss(self, params: PyTree, batch: dict[str, Array], key: Key) -> tuple[Array, dict[str, Array]]:
        """Returns the mean negative log-likelihood of the answers' tokens, in nats."""
        tokens_BxT, is_answer_BxT = batch["tokens"], batch["is_answer"]
        logits_BxTxV = self._run(params["adapter"], params["base"], tokens_BxT, batch["mask"], key=key)
        nats = evaluate.next_token_nats(logits_BxTxV[:, :-1], tokens_BxT[:, 1:])
        counted = is_answer_BxT[:, 1:]
        weight = counted.sum()
        return (nats * counted).sum() / jnp.maximum(weight, 1), {"weight": weight}

    def optimizer(self, params: PyTree, rate: float) -> optimizer.PathOptimizer:
        """Returns the optimizer, with a rule for every parameter."""
        return optimizer.by_path(rules(self.config, params["adapter"], rate))

    def trained(self, task: Task, rate: float, seed: int, folder: RunFolder, part: str) -> peft.Adapter:
        """Returns the adapter after training with one rate and seed, from its newest checkpoint if there is one."""
        config = self.config
        init_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), seed))
        params = self.params(init_key)
        batches = data.batches(task.train, batch_size=config.batch_size, seed=config.seed + seed)
        path = folder.checkpoints / part
        folder.log(part=part)
        with (
            Checkpointer(path, every=config.checkpoint_every, keep=1, config=config) as checkpoints,
            contextlib.closing(batches),
        ):
            result = fit(
                self.loss,
                params,
                batches,
                optimizer=self.optimizer(params, rate),
                steps=config.steps,
                key=run_key,
                checkpoints=checkpoints,
                folder=folder,
                log_every=config.report_every,
            )
        shutil.rmtree(path)
        return result.params["adapter"]

    def answers(self, adapter: peft.Adapter | None, task: Task, split: Split) -> np.ndarray:
        """Returns the class whose answer the model writes to each prompt, -1 where it is none of them.

        Args:
          adapter: the adapter; None stands for the model as it is.
          task: the task.
          split: the prompts.
        """
        longest = max(map(len, task.answers))
        predicted = np.full(len(split.prompts), -1)
        by_length = np.argsort([len(prompt) for prompt in split.prompts], kind="stable")
        adapted: dict[str, Any] = {}
        if adapter is not None:
            adapted = {"params": {"adapter": adapter, "base": self.pretrained.params}, "apply_fn": self._write}
        for start in range(0, len(by_length), _PROMPTS):
            rows = by_length[start : start + _PROMPTS]
            width = max(len(split.prompts[row]) for row in rows)
            tokens, mask = np.zeros((2, _PROMPTS, width), np.int32)
            mask[:, -1] = 1  # a row that holds no prompt must have a token, too
            for i, row in enumerate(rows):
                prompt = split.prompts[row]
                tokens[i, width - len(prompt) :], mask[i, width - len(prompt) :] = prompt, 1
            end = task.answers[0][-1:]
            written = generate(
                self.pretrained, tokens, attention_mask=mask, max_new_tokens=longest, stop_tokens=end, **adapted
            )
            for row, ids, length in zip(rows, written.tokens, written.lengths, strict=False):
                found = ids[:length].tolist()
                predicted[row] = task.answers.index(found) if found in task.answers else -1
        return predicted


def load(config: Instruction, pretrained: Pretrained) -> Task:
    """Loads the splits as prompts and answers.

    Raises:
      ValueError: if the model is no causal language model with the end token, the data are no texts, answers do not fit
        the classes or are not distinct, or the rows do not fill a batch.
    """
    tokenizer = pretrained.tokenizer
    if tokenizer is None or not hasattr(pretrained.module, "init_cache"):
        raise ValueError(f"model must be a causal language model with a tokenizer, got {config.model}")
    end = tokenizer.token_id(config.end_token)
    if end is None:
        raise ValueError(f"end_token must be a token of {config.model}, got {config.end_token!r}")
    limits = (config.train_examples, config.validation_examples, config.test_examples)
    names = [f"{n}[:{k}]" if k else n for n, k in zip(("train", "validation", "test"), limits, strict=True)]
    train, validation, test = (data.load(config.dataset, split=name) for name in names)
    if not isinstance(train.inputs, list):
        raise ValueError(f"dataset must hold texts, got {train!r}")
    words, encode = config.answers or train.class_names, tokenizer.encode_plain
    answers = [[*encode(f" {word}"), end] for word in words]
    if len(words) != len(train.class_names) or len({tuple(ids) for ids in answers}) < len(words):
        raise ValueError(f"answers must be {len(train.class_names)} different texts, one a class, got {words}")

    def split(part: Dataset) -> Split:
        return Split([encode(config.prompt.format(text)) for text in part.inputs], part.labels)

    rows = []
    for prompt, label in zip(*split(train), strict=True):
        ids = [*prompt, *answers[label]]
        if len(ids) <= config.length:
            tokens, mask, is_answer = np.zeros((3, config.length), np.int32)
            tokens[: len(ids)], mask[: len(ids)], is_answer[len(prompt) : len(ids)] = ids, 1, 1
            rows.append({"tokens": tokens, "mask": mask, "is_answer": is_answer})
    if len(rows) < config.batch_size:
        raise ValueError(f"batch_size must be at most the {len(rows)} rows that fit length, got {config.batch_size}")
    return Task(rows, len(train) - len(rows), split(validation), split(test), test, answers)


def compete(config: Instruction, task: Task, name: MethodName, student: Student, folder: RunFolder) -> dict[str, Any]:
    """Chooses the rate of a method on the validation split, then trains at it with each seed and tests."""
    validation = []
    for rate in config.learning_rates:
        part = f"{name} rate {rate:g}"

        def choose(rate: float = rate, part: str = part) -> float:
            try:
                # A seed of its own, which is none of the trials'.
                adapter = student.trained(task, rate, config.seeds, folder, part)
            except NotFiniteError:
                return 0.0
            return float((student.answers(adapter, task, task.validation) == task.validation.labels).mean())

        validation.append(folder.cached(part, choose))
    best = config.learning_rates[int(np.argmax(validation))]
    predictions = []
    for seed in range(config.seeds):
        part = f"{name} seed {seed}"

        def test(seed: int = seed, part: str = part) -> list[int]:
            adapter = student.trained(task, best, seed, folder, part)
            return student.answers(adapter, task, task.test).tolist()

        predictions.append(folder.cached(part, test))
    return {"rate": best, "validation": validation, "predictions": predictions}


def cost(student: Student, task: Task) -> dict[str, Any]:
    """Returns what a step costs."""
    config = student.config
    params = student.params(jax.random.key(0))
    batch = next(data.batches(task.train, batch_size=config.batch_size, threads=0))
    chosen = student.optimizer(params, config.learning_rates[0])
    return measure(student.loss, params, batch, chosen, steps=config.timed_steps)
