"""Texts for language models: passages to learn from and passages to be judged on, and what compressors make of them."""

import bz2
import lzma
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from zsml_jax.data import documents


class Corpus(NamedTuple):
    """Passages of texts, in the order of the files."""

    train: list[str]
    held_out: list[str]

    @property
    def held_out_bytes(self) -> list[int]:
        """The length of each held-out passage in UTF-8."""
        return [len(passage.encode()) for passage in self.held_out]


def load_corpus(texts: Sequence[str], passage_chars: int, held_out_every: int, *, unwrap_lines: bool = False) -> Corpus:
    """Cuts text files into passages and holds out every so many of them.

    Args:
      texts: files, patterns or folders, see :class:`~zsml_jax.data.documents.TextFiles`.
      passage_chars: the most characters of a passage.
      held_out_every: passages from one that is held out to the next; at least 2.
      unwrap_lines: whether single line breaks become spaces; empty lines stay.

    Raises:
      ValueError: if there are no files, too little text, or a number is out of its range.
    """
    if not texts:
        raise ValueError("texts must name text files, folders of them or patterns: --texts FOLDER")
    if held_out_every < 2:
        raise ValueError(f"held_out_every must be at least 2, got {held_out_every}")
    whole = [_unwrapped(text) if unwrap_lines else text for text in documents.TextFiles(texts)]
    found = [passage for text in whole for passage in documents.passages(text, passage_chars)]
    if len(found) < held_out_every:
        raise ValueError(
            f"texts must hold at least {held_out_every} passages (held_out_every), got {len(found)}; "
            f"make passage_chars smaller than {passage_chars}"
        )
    numbered = list(enumerate(found, start=1))
    train = [passage for i, passage in numbered if i % held_out_every]
    return Corpus(train, [passage for i, passage in numbered if not i % held_out_every])


def baselines(corpus: Corpus) -> dict[str, float]:
    """Returns the bits for a held-out byte that a reader without a language model needs, by the name of the method.

    The frequencies of bytes are those of the training passages, with one added to each. A compressor gets the held-out
    passages alone; lzma, whose dictionary holds them all, also gets the training passages first, and what it needs for
    these alone is taken off.
    """
    train, held_out = "".join(corpus.train).encode(), "".join(corpus.held_out).encode()
    counts = np.bincount(np.frombuffer(train, np.uint8), minlength=256) + 1
    own = np.bincount(np.frombuffer(held_out, np.uint8), minlength=256)
    pack = lambda content: len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    bits = {
        "frequencies of bytes": -float(own @ np.log2(counts / counts.sum())),
        "bz2": 8 * len(bz2.compress(held_out, 9)),
        "lzma": 8 * pack(held_out),
        "lzma, after the training text": 8 * (pack(train + held_out) - pack(train)),
    }
    return {name: value / len(held_out) for name, value in bits.items()}


def _unwrapped(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)
