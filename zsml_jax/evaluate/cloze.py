"""How a model reads a sentence with a blank, and what it gives the words that may stand there.

A masked model sees the mask token in the blank and the words on both sides; a causal one what stands before the blank;
an encoder-decoder of T5's kind the whole sentence with its first sentinel in the blank, and its decoder that sentinel.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.evaluate.continuations import T5_START, decoder_logits
from zsml_jax.evaluate.facts import BLANK, Fact
from zsml_jax.evaluate.text_scores import start_id
from zsml_jax.models.batches import pad_rows, plan_batches, round_length
from zsml_jax.models.bert import Bert
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.t5 import T5
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.typing import Array, Params, PyTree

#: The token that stands for a blank in T5's pretraining (Raffel et al., 2020, section 3.1.4).
SENTINEL = "<extra_id_0>"


class Cloze(NamedTuple):
    """The token ids of a sentence with its blank.

    Attributes:
      tokens: all that the model reads.
      blank: the position of the (first) mask; of a causal model the position after the last token.
    """

    tokens: list[int]
    blank: int


class Reader:
    """Writes facts in the tokens of one model.

    Args:
      pretrained: a masked or causal language model or an encoder-decoder, with its tokenizer.

    Attributes:
      tokenizer: the tokenizer.
      kind: "masked", "causal" or "seq2seq".

    Raises:
      ValueError: if the model is of another kind, has no tokenizer, or no token for blanks.
    """

    def __init__(self, pretrained: Pretrained):
        self.kind = kind_of(pretrained)
        if pretrained.tokenizer is None:
            raise ValueError("pretrained must have a tokenizer")
        self.tokenizer: Tokenizer = pretrained.tokenizer
        self.max_length: int = pretrained.config.max_length
        self._before, self._after = self.tokenizer.added_tokens()
        self._blank_id = self._blank_token()
        self._objects: dict[str, list[int]] = {}

    def object_ids(self, word: str) -> list[int]:
        """Returns the tokens of a word or phrase that stands after another word."""
        if word not in self._objects:
            self._objects[word] = object_ids(self.tokenizer, word)
        return self._objects[word]

    def cloze(self, fact: Fact, width: int = 1) -> Cloze | None:
        """Returns what the model reads with a blank of some masks, None if that is more than it can read."""
        encode = self.tokenizer.encode_plain
        before = encode(fact.before.rstrip()) if fact.before.strip() else []
        tokens = [*self._before, *before]
        if self.kind == "causal":
            tokens = tokens or [start_id(self.tokenizer)]
            return Cloze(tokens, len(tokens)) if len(tokens) + width <= self.max_length else None
        blank = len(tokens)
        tokens += [self._blank_id] * (width if self.kind == "masked" else 1)
        tokens += [*self.after_ids(fact), *self._after]
        return Cloze(tokens, blank) if len(tokens) <= self.max_length else None

    def after_ids(self, fact: Fact) -> list[int]:
        """Returns the tokens of what stands after the blank."""
        mask = self.tokenizer.special.get("mask_token", BLANK)
        return self.tokenizer.encode_plain(fact.after.replace(BLANK, mask)) if fact.after.strip() else []

    @property
    def blank_id(self) -> int:
        """The id of the token that stands in a blank."""
        return self._blank_id

    def _blank_token(self) -> int:
        if self.kind == "causal":
            return -1
        name = self.tokenizer.special.get("mask_token", BLANK) if self.kind == "masked" else SENTINEL
        token = self.tokenizer.token_id(name)
        if token is None:
            raise ValueError(f"pretrained must have a token for blanks, {name!r}, in its tokenizer")
        return token


def object_ids(tokenizer: Tokenizer, word: str) -> list[int]:
    """Returns the tokens of a word or phrase that stands after another word."""
    # Tokenizers differ in how they write a space, so it is seen between two words.
    return tokenizer.encode_plain(f"the {word}")[len(tokenizer.encode_plain("the")) :]


def object_token(tokenizer: Tokenizer, word: str) -> int | None:
    """Returns the token of a word that is one, None for others and for what the tokenizer does not know."""
    ids = object_ids(tokenizer, word)
    return ids[0] if len(ids) == 1 and ids[0] != tokenizer.token_id(tokenizer.special.get("unk_token", "")) else None


def kind_of(pretrained: Pretrained) -> str:
    """Returns "masked", "causal" or "seq2seq".

    Raises:
      ValueError: if the model scores no words.
    """
    module: Any = pretrained.module
    if isinstance(module, Bert) and pretrained.config.masked_lm:
        return "masked"
    if isinstance(module, T5):
        return "seq2seq"
    if hasattr(module, "init_cache"):
        return "causal"
    raise ValueError(
        f"pretrained must be a masked or causal language model or an encoder-decoder, got a {type(module).__name__}"
    )


@functools.cache
def blank_logits(module: Any, kind: str, width: int = 1) -> Callable[[Params, PyTree], Array]:
    """Returns the function from ``(tokens, mask, blank)`` to the scores of words in a blank, ``(b, width, v)``.

    The same function for the same arguments, so that it is compiled once.
    """

    def masked(params: Params, inputs: PyTree) -> Array:
        tokens_BxT, mask_BxT, blank_B = inputs
        logits_BxTxV = module.apply({"params": params}, tokens_BxT, mask_BxT).logits
        places_BxW = blank_B[:, None] + jnp.arange(width)
        return jnp.take_along_axis(logits_BxTxV, places_BxW[..., None], axis=1)

    def causal(params: Params, inputs: PyTree) -> Array:
        tokens_BxT, mask_BxT, _ = inputs
        return module.apply({"params": params}, tokens_BxT, mask_BxT, only_last=True).logits

    def seq2seq(params: Params, inputs: PyTree) -> Array:
        tokens_BxT, mask_BxT, blank_B = inputs
        sentinel_B = jnp.take_along_axis(tokens_BxT, blank_B[:, None], axis=1)[:, 0]
        decoder_Bx2 = jnp.stack([jnp.full_like(sentinel_B, T5_START), sentinel_B], axis=1)
        return decoder_logits(module)(params, (tokens_BxT, mask_BxT, decoder_Bx2))[:, -1:]

    return {"masked": masked, "causal": causal, "seq2seq": seq2seq}[kind]


def cloze_batches(
    clozes: Mapping[int, Cloze], max_length: int, pad_id: int, batch_tokens: int
) -> Iterator[tuple[list[int], tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yields by batch the keys of what is in it, and what the model reads.

    Args:
      clozes: the sentences by a key.
      max_length: the model's longest sequence.
      pad_id: what fills rows on the right.
      batch_tokens: about so many tokens make a batch.

    Yields:
      The keys, and tokens and mask ``(size, length)`` with the blanks ``(size,)``; rows that are left have one token.
    """
    keys, rows = list(clozes), list(clozes.values())
    widest = min(max_length, round_length(max((len(row.tokens) for row in rows), default=1)))
    planned = plan_batches(
        [len(row.tokens) for row in rows], max_length=widest, batch_size=max(1, batch_tokens // widest)
    )
    for batch in planned:
        tokens, mask = pad_rows([np.asarray(row.tokens) for row in rows], batch, pad_id)
        mask[len(batch.rows) :, 0] = 1
        blank = np.zeros(batch.size, np.int32)
        blank[: len(batch.rows)] = [rows[row].blank for row in batch.rows]
        yield [keys[row] for row in batch.rows], (tokens, mask, blank)


@functools.partial(jax.jit, static_argnums=(0, 1))
def rank_words(
    apply_fn: Any, top: int, params: Params, inputs: PyTree, allowed_V: Array, answers_BxA: Array
) -> tuple[Array, Array, Array]:
    """Returns the rank of each answer among the allowed words ``(b, a)``, and the best words ``(b, top)``.

    The third result is true where a score is not a number, ``(b,)``.
    Of equal scores the word with the lower id ranks first. Answers below 0 stand for none, and have rank 0.
    """
    scores_BxV = apply_fn(params, inputs)[:, 0].astype(jnp.float32)
    logits_BxV = jnp.where(allowed_V, scores_BxV, -jnp.inf)
    _, best_BxK = jax.lax.top_k(logits_BxV, top)
    words_V = jnp.arange(logits_BxV.shape[1])

    def rank(answer_B: Array) -> Array:
        own_Bx1 = jnp.take_along_axis(logits_BxV, jnp.maximum(answer_B, 0)[:, None], axis=1)
        ahead_BxV = (logits_BxV > own_Bx1) | ((logits_BxV == own_Bx1) & (words_V < answer_B[:, None]))
        return jnp.where(answer_B < 0, 0, 1 + ahead_BxV.sum(axis=1))

    return jax.lax.map(rank, answers_BxA.T).T, best_BxK, jnp.isnan(scores_BxV).any(axis=1)


@functools.partial(jax.jit, static_argnums=0)
def score_masked(apply_fn: Any, params: Params, inputs: PyTree, candidates_BxCxW: Array) -> Array:
    """Returns the joint log-probability of each candidate, one token a mask, all masks at once, ``(b, c)``."""
    log_probs_BxWxV = jax.nn.log_softmax(apply_fn(params, inputs).astype(jnp.float32), axis=-1)
    picked_BxWxC = jnp.take_along_axis(log_probs_BxWxV, candidates_BxCxW.transpose(0, 2, 1), axis=-1)
    return picked_BxWxC.sum(axis=1)
