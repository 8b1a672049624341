"""The published training set-ups of MoRe as presets: GLUE with RoBERTa-large, commonsense and math with LLaMA-7B.

The numbers are those stored with the released code (SprocketLab/sparse_matrix_fine_tuning, ``task_configs`` and
``results``). The splits are not. The released code tunes, selects and reports GLUE on one split, and takes its
commonsense test rows out of the training files; here a part of the training rows is held out for every choice, and
what is reported is read once, at the end:

- GLUE: the labels of the test splits are not public, so that the validation split is the test split, and a tenth of the
  training rows is what chooses.
- Commonsense: the test files of the eight tasks; the last 10,000 rows of ``commonsense_170k`` choose.
- Math: the last 800 rows of ``math_10k`` choose. Of the test sets that come with it MultiArith, AddSub and SingleEq
  are left out, since ``math_10k`` holds rows of them.

>>> glue("cola").learning_rate, commonsense().rows_per_update
(0.00021, 16)
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from zsml_jax.data.nearest_name import nearest
from zsml_jax.peft.adapter import Adapter
from zsml_jax.peft.method import Method
from zsml_jax.peft.more import MoRe
from zsml_jax.peft.training import optimizer_rules
from zsml_jax.train import optimizer, schedules

#: How a prediction is scored, and where: ``matthews`` and ``pearson`` in :mod:`zsml_jax.evaluate.correlations`,
#: ``accuracy`` in :mod:`zsml_jax.evaluate.metrics`, ``stated_answer`` and ``number_or_letter`` in
#: :mod:`zsml_jax.evaluate.answers`.
Score = Literal["accuracy", "matthews", "pearson", "stated_answer", "number_or_letter"]


@dataclasses.dataclass(frozen=True)
class Splits:
    """Which rows do what.

    Attributes:
      train: rows to train on, as a split string of the source.
      validation: rows that choose: the rate, the checkpoint.
      test: of each test set, its split; read once, for the report.
      test_rows: how many rows a test set has, where that is known.
    """

    train: str
    validation: str
    test: Mapping[str, str]
    test_rows: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.validation in self.test.values() or self.train in (self.validation, *self.test.values()):
            raise ValueError(
                f"test must be other rows than those that train and choose, got {self.train}, {self.validation} and "
                f"{dict(self.test)}"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one task is trained.

    Attributes:
      model: the pretrained model, by its name on the hub.
      source: the data set, by its usual name.
      splits: which rows do what.
      method: the adapter's config.
      learning_rate: the peak, of adapter and head alike.
      schedule: what follows the warm-up.
      epochs: passes over the training rows.
      micro_batch: rows of one pass through the model.
      accumulate: micro-batches of one update.
      length: the most tokens of a row.
      score: how predictions are scored.
      warmup_share: of all updates.
      weight_decay: as in :func:`zsml_jax.train.optimizer.adamw`.
      evaluate_every: updates between two evaluations, of which the best checkpoint stays; None after each epoch.
      dtype: of the computation.
      new_tokens: the most tokens that are generated, greedily; 0 for classifiers.
      answer_only: whether the loss counts the tokens of the answer only.
      seed: the released run's.
    """

    model: str
    source: str
    splits: Splits
    method: Method
    learning_rate: float
    schedule: Literal["cosine", "linear"]
    epochs: int
    micro_batch: int
    accumulate: int
    length: int
    score: Score
    warmup_share: float
    weight_decay: float
    evaluate_every: int | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    new_tokens: int = 0
    answer_only: bool = False
    seed: int = 42

    @property
    def rows_per_update(self) -> int:
        """Rows of one update."""
        return self.micro_batch * self.accumulate

    def updates(self, num_rows: int) -> int:
        """Returns the updates of all epochs over so many training rows; the last update of an epoch may be smaller.

        Raises:
          ValueError: if there are no rows.
        """
        if num_rows < 1:
            raise ValueError(f"num_rows must be at least 1, got {num_rows}")
        return self.epochs * math.ceil(num_rows / self.rows_per_update)

    def rate(self, num_rows: int) -> schedules.Schedule:
        """Returns the learning rate over the updates."""
        updates = self.updates(num_rows)
        curve: Any = {"cosine": schedules.warmup_cosine, "linear": schedules.warmup_linear}[self.schedule]
        return curve(self.learning_rate, steps=updates, warmup_steps=math.ceil(self.warmup_share * updates))

    def optimizer(self, adapter: Adapter, num_rows: int) -> optimizer.PathOptimizer:
        """Returns AdamW for the tree of :func:`~zsml_jax.peft.optimizer_rules`: the base is frozen.

        Args:
          adapter: of the recipe's method.
          num_rows: training rows.
        """
        adamw = optimizer.adamw(self.rate(num_rows), weight_decay=self.weight_decay)
        return optimizer.by_path(optimizer_rules(adapter, adamw))


#: Of each GLUE task: epochs, updates between evaluations, rate, batch, schedule, score.
_GLUE: dict[str, tuple[int, int, float, int, Literal["cosine", "linear"], Score]] = {
    "cola": (20, 150, 2.1e-4, 16, "cosine", "matthews"),
    "mnli": (10, 500, 2.0e-4, 32, "linear", "accuracy"),
    "mrpc": (20, 150, 3.2e-4, 32, "cosine", "accuracy"),
    "qnli": (10, 400, 3.0e-4, 32, "cosine", "accuracy"),
    "qqp": (20, 1250, 6.2e-4, 32, "cosine", "accuracy"),
    "rte": (20, 150, 5.4e-4, 16, "cosine", "accuracy"),
    "sst2": (10, 800, 5.4e-4, 16, "cosine", "accuracy"),
    "stsb": (20, 150, 4.0e-4, 32, "cosine", "pearson"),
}
GLUE = tuple(_GLUE)

#: The eight commonsense tasks and the rows of their test files, ``dataset/<name>/test.json`` of LLM-Adapters.
COMMONSENSE = {
    "boolq": 3270,
    "piqa": 1838,
    "social_i_qa": 1954,
    "hellaswag": 10042,
    "winogrande": 1267,
    "ARC-Easy": 2376,
    "ARC-Challenge": 1172,
    "openbookqa": 500,
}
MATH = ("AQuA", "gsm8k", "mawps", "SVAMP")

_TARGETS = ("query", "key", "value")


def glue(task: str) -> Recipe:
    """Returns the recipe of a GLUE task for RoBERTa-large; the head is trained in full.

    Raises:
      ValueError: if there is no such task.
    """
    if task not in _GLUE:
        raise ValueError(f"task must be of GLUE, got {task!r}. {nearest(task, GLUE, 'tasks')}")
    epochs, every, rate, batch, schedule, score = _GLUE[task]
    return Recipe(
        model="FacebookAI/roberta-large",
        source=f"glue/{task}",
        splits=Splits("train[:90%]", "train[90%:]", {task: "validation_matched" if task == "mnli" else "validation"}),
        method=MoRe(blocks=4, block_rank=4, targets=_TARGETS),
        learning_rate=rate,
        schedule=schedule,
        epochs=epochs,
        micro_batch=batch,
        accumulate=1,
        length=128,
        score=score,
        warmup_share=0.06,
        weight_decay=0.001,
        evaluate_every=every,
    )


def commonsense() -> Recipe:
    """Returns the recipe of commonsense reasoning for LLaMA-7B."""
    tests = {name: f"{name}/test" for name in COMMONSENSE}
    splits = Splits("train[:-10000]", "train[-10000:]", tests, COMMONSENSE)
    return _reasoning("commonsense_170k", splits, 4e-4, epochs=3, accumulate=8, score="stated_answer", new_tokens=32)


def math_reasoning() -> Recipe:
    """Returns the recipe of math word problems for LLaMA-7B."""
    splits = Splits("train[:-800]", "train[-800:]", {name: f"{name}/test" for name in MATH})
    return _reasoning("math_10k", splits, 3e-4, epochs=12, accumulate=32, score="number_or_letter", new_tokens=512)


def _reasoning(
    source: str, splits: Splits, rate: float, *, epochs: int, accumulate: int, score: Score, new_tokens: int
) -> Recipe:
    return Recipe(
        model="yahma/llama-7b-hf",
        source=source,
        splits=splits,
        method=MoRe(blocks=4, block_rank=4, targets=_TARGETS, dropout=0.1),
        learning_rate=rate,
        schedule="cosine",
        epochs=epochs,
        micro_batch=2,
        accumulate=accumulate,
        length=512,
        score=score,
        warmup_share=0.1,
        weight_decay=0.0,
        dtype="bfloat16",
        new_tokens=new_tokens,
        answer_only=True,
    )
