"""Tokenizers learned from texts."""

import sys
from collections.abc import Iterable

from tokenizers import models, pre_tokenizers, trainers

from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.models.tokenizer_files import byte_bpe

_BYTES = 256


def train_byte_bpe(texts: Iterable[str], *, vocab_size: int, end_token: str = "<|endoftext|>") -> Tokenizer:
    """Learns a byte-level BPE tokenizer (Sennrich et al., 2016; Radford et al., 2019, section 2.2).

    Every text can be written in its tokens, since all bytes are among them, and is decoded to what it was.

    Args:
      texts: the texts to learn from, each merged by itself.
      vocab_size: tokens to have, the 256 bytes and the end token among them; fewer if no pair occurs twice any more.
      end_token: the special token that ends a text; its id is 0.

    Returns:
      The tokenizer. It adds no special token by itself.

    Raises:
      ValueError: if ``vocab_size`` leaves no room for the bytes and the end token.
    """
    if vocab_size <= _BYTES:
        raise ValueError(f"vocab_size must be more than {_BYTES}, for all bytes and the end token, got {vocab_size}")
    tokenizer = byte_bpe({}, [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[end_token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if not isinstance(tokenizer.model, models.BPE):
        raise TypeError(f"the library returned a {type(tokenizer.model).__name__}")
    special = {"bos_token": end_token, "eos_token": end_token, "unk_token": end_token}
    return Tokenizer.of(tokenizer, max_length=sys.maxsize, **special)
