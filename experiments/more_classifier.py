"""Sentence classifiers of the MoRe experiment: all trials of a method, rates or seeds, are one vmapped program."""

import dataclasses
import functools
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.more_config import Classification, MethodName
from experiments.more_costs import measure
from experiments.more_methods import Contender, rules
from zsml_jax import data, peft
from zsml_jax.data.dataset import Dataset
from zsml_jax.models import Pretrained, SentenceConfig
from zsml_jax.models.linear_head import init_linear_head, linear_head
from zsml_jax.models.sentence import pool
from zsml_jax.report import RunFolder
from zsml_jax.train import checkpoint, optimizer, sweep
from zsml_jax.train.points import Points, grid
from zsml_jax.train.shuffling import shuffled_batch
from zsml_jax.train.state import TrainState, init_state
from zsml_jax.train.step import make_step
from zsml_jax.train.study import Study
from zsml_jax.typing import Array, Key, Params, PyTree

#: Rows evaluated at a time.
_CHUNK = 64
#: What separates the random numbers of the choice of a rate from those of the trials at it.
_CHOICE, _TRIALS = 0, 1


class Rows(NamedTuple):
    """Texts as token ids ``(n, t)``, their mask, and their labels ``(n,)``."""

    tokens: Array
    mask: Array
    labels: Array


class Splits(NamedTuple):
    """The rows of each split, the test set for its names and groups, and the share of texts that lose their end."""

    train: Rows
    validation: Rows
    test: Rows
    test_set: Dataset
    share_cut: float


class Classifier:
    """One trial of one method as pure functions of its state.

    Args:
      config: the experiment's.
      pretrained: the encoder.
      contender: the method.
      num_classes: of the data set.
    """

    def __init__(self, config: Classification, pretrained: Pretrained, contender: Contender, num_classes: int):
        self.config, self.pretrained, self.method, self.num_classes = config, pretrained, contender.method, num_classes
        self.run = peft.apply_fn(pretrained.hidden_states)

    def adapter(self, key: Key, base: Params) -> peft.Adapter:
        """Returns the adapter with the head before the first step."""
        adapter_key, head_key = jax.random.split(key)
        head = fresh_head(self.pretrained, self.num_classes, head_key)
        pretrained = dataclasses.replace(self.pretrained, params=base)
        return peft.adapt(pretrained, self.method, key=adapter_key, head=head)

    def logits(self, adapter: peft.Adapter, base: Params, rows: Rows, key: Key | None = None) -> Array:
        """Returns the logits of the pooled hidden states."""
        hidden = self.run(adapter, base, rows.tokens, rows.mask, key=key)
        # Not of unit length, as the encoder's own vectors are: the head would first have to grow.
        poolings = SentenceConfig(poolings=self.pretrained.sentence.poolings, normalize=False)
        return linear_head(adapter.head, pool(hidden, rows.mask, poolings))

    def loss(self, params: PyTree, batch: Rows, key: Key) -> tuple[Array, dict[str, Array]]:
        """Returns the mean cross-entropy in nats; ``params`` holds the adapter and the base."""
        logits = self.logits(params["adapter"], params["base"], batch, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean(), {}

    def optimizer(self, adapter: peft.Adapter, rate: Any, *, with_base: bool) -> optimizer.PathOptimizer:
        """Returns the optimizer, of the adapter alone or of a tree that holds the base, too."""
        found = rules(self.config, adapter, rate, head_factor=self.config.head_factor)
        # The last rule freezes the base, which the trials of a study share as an argument.
        return optimizer.by_path(found if with_base else found[:-1])

    def start(self, key: Key, hyperparameters: dict[str, Array], base: Params, train: Rows) -> dict[str, PyTree]:
        """Returns the state before the first step."""
        del train
        init_key, run_key = jax.random.split(key)
        adapter = self.adapter(init_key, base)
        chosen = self.optimizer(adapter, hyperparameters["learning_rate"], with_base=False)
        return {"run": init_state({"adapter": adapter}, chosen, key=run_key), "total_loss": jnp.float32(0)}

    def step(
        self, key: Key, hyperparameters: dict[str, Array], state: dict[str, Any], base: Params, train: Rows
    ) -> dict[str, PyTree]:
        """Trains on one batch; each epoch goes over the training rows in an order of the trial's own."""
        run: TrainState = state["run"]
        chosen = self.optimizer(run.params["adapter"], hyperparameters["learning_rate"], with_base=False)
        batch = shuffled_batch(train, run.step, self.config.batch_size, key=key)
        with_base = lambda params, batch, key: self.loss({**params, "base": base}, batch, key)
        run, metrics = make_step(with_base, chosen)(run, batch)
        return {"run": run, "total_loss": state["total_loss"] + metrics["loss"]}

    def predictions(self, adapters: PyTree, base: Params, rows: Rows) -> np.ndarray:
        """Returns the predicted classes of stacked adapters, ``(trials, n)``."""
        return np.asarray(_predictions(self, adapters, base, rows))


def fresh_head(pretrained: Pretrained, num_classes: int, key: Key) -> Params:
    """Returns a classification head for the encoder's vectors."""
    width = pretrained.config.width * len(pretrained.sentence.poolings)
    return init_linear_head(width, num_classes, key=key)


def load(config: Classification, pretrained: Pretrained) -> Splits:
    """Loads the splits and cuts their texts into tokens.

    Raises:
      ValueError: if the model has no tokenizer or no room for the length, or the data are no texts or fill no batch.
    """
    limits = (config.train_examples, config.validation_examples, config.test_examples)
    names = [
        f"{name}[:{limit}]" if limit else name
        for name, limit in zip(("train", "validation", "test"), limits, strict=True)
    ]
    sets = [data.load(config.dataset, split=name) for name in names]
    if len(sets[0]) < config.batch_size:
        raise ValueError(f"batch_size must be at most the {len(sets[0])} training examples, got {config.batch_size}")
    if config.length > pretrained.config.max_length:
        raise ValueError(f"length must be at most the model's {pretrained.config.max_length}, got {config.length}")
    (train, *_), (validation, *_), (test, *_) = parts = [rows(config, pretrained, part) for part in sets]
    return Splits(train, validation, test, sets[2], float(np.concatenate([too_long for _, too_long in parts]).mean()))


def rows(config: Classification, pretrained: Pretrained, part: Dataset) -> tuple[Rows, np.ndarray]:
    """Returns the rows of a split, and whether each text was too long.

    Raises:
      ValueError: if the model has no tokenizer, or the data are no texts.
    """
    if pretrained.tokenizer is None or not isinstance(part.inputs, list):
        raise ValueError(f"model must have a tokenizer and dataset hold texts, got {config.model} and {part!r}")
    limit = min(pretrained.config.max_length, pretrained.tokenizer.max_length)
    lowercase = pretrained.sentence.lowercase
    texts = [text.lower() for text in part.inputs] if lowercase else part.inputs
    lengths = np.array([len(row) for row in pretrained.tokenizer.ragged(texts, max_length=limit)])
    sequences = pretrained.tokenizer.ragged(texts, max_length=config.length)
    tokens = np.full((len(sequences), config.length), pretrained.tokenizer.pad_id, np.int32)
    mask = np.zeros_like(tokens)
    for i, sequence in enumerate(sequences):
        tokens[i, : len(sequence)], mask[i, : len(sequence)] = sequence, 1
    labels = jnp.asarray(part.labels, jnp.int32)
    return Rows(jnp.asarray(tokens), jnp.asarray(mask), labels), lengths > config.length


def compete(
    config: Classification, pretrained: Pretrained, splits: Splits, name: MethodName, classifier: Classifier,
    folder: RunFolder,
) -> dict[str, Any]:  # fmt: skip
    """Chooses the rate of a method on the validation split, then trains at it with each seed and tests."""
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    args = (pretrained.params, splits.train)

    def choose() -> list[float]:
        points = grid(learning_rate=config.learning_rates)
        study = _trained(config, classifier, points, jax.random.fold_in(key, _CHOICE), 1, args, folder, name)
        predicted = classifier.predictions(_adapters(study), pretrained.params, splits.validation)
        accuracy = (predicted == np.asarray(splits.validation.labels)).mean(axis=1)
        return np.where(study.finite, accuracy, 0).tolist()

    validation = folder.cached(f"{name} rates", choose)
    rate = config.learning_rates[int(np.argmax(validation))]

    def test() -> list[list[int]]:
        points = grid(learning_rate=[rate])
        trials = jax.random.fold_in(key, _TRIALS)
        study = _trained(config, classifier, points, trials, config.seeds, args, folder, name)
        if not study.finite.all():
            raise FloatingPointError(f"{name} at the rate {rate:g} has diverged with another seed than the choice's")
        predicted = classifier.predictions(_adapters(study), pretrained.params, splits.test)
        if not isinstance(classifier.method, peft.FullFineTuning):  # which would take as much room as three models
            checkpoint.save(folder.checkpoints / f"{name} adapters", _adapters(study), config)
        return predicted.tolist()

    return {"rate": rate, "validation": validation, "predictions": folder.cached(f"{name} trials", test)}


def cost(classifier: Classifier, train: Rows) -> dict[str, Any]:
    """Returns what a step of one trial alone costs."""
    base, config = classifier.pretrained.params, classifier.config
    adapter = classifier.adapter(jax.random.key(0), base)
    chosen = classifier.optimizer(adapter, config.learning_rates[0], with_base=True)
    batch = jax.tree.map(lambda leaf: leaf[: config.batch_size], train)
    return measure(classifier.loss, {"adapter": adapter, "base": base}, batch, chosen, steps=config.timed_steps)


def _trained(
    config: Classification,
    classifier: Classifier,
    points: Points,
    key: Key,
    seeds: int,
    args: tuple[Params, Rows],
    folder: RunFolder,
    name: str,
) -> Study:
    """Trains a study's trials, from its newest checkpoint if there is one."""
    what = f"{name} {'trials' if seeds > 1 else 'rates'}"
    options = {"every": config.checkpoint_every, "keep": 1, "config": config}
    with checkpoint.Checkpointer(folder.checkpoints / what, **options) as checkpoints:
        done = checkpoints.latest_step or 0
        if done:
            like = sweep.abstract(classifier.start, points, key=key, seeds=seeds, args=args)
            study = checkpoints.restore(like=like)
        else:
            study = sweep.run(classifier.start, points, key=key, seeds=seeds, args=args)
        while done < config.steps:
            count = min(config.report_every, config.steps - done)
            before = study.metric("total_loss")
            study = sweep.advance(classifier.step, study, repeat=count, args=args)
            done += count
            folder.log(done, part=what, loss=((study.metric("total_loss") - before) / count).tolist())
            checkpoints.save(done, study)
    shutil.rmtree(folder.checkpoints / what)
    return study


def _adapters(study: Study) -> PyTree:
    """The adapters of all trials, stacked."""
    (group,) = study.groups
    return group.output["run"].params["adapter"]


@functools.partial(jax.jit, static_argnums=0)
def _predictions(classifier: Classifier, adapters: PyTree, base: Params, rows: Rows) -> Array:
    def of_one(row: Rows) -> Array:
        alone = jax.tree.map(lambda leaf: leaf[None], row)
        return jax.vmap(lambda adapter: classifier.logits(adapter, base, alone)[0].argmax())(adapters)

    return jax.lax.map(of_one, rows, batch_size=_CHUNK).T
