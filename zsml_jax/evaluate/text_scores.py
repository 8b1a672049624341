"""Texts as a language model predicts them: perplexity and bits per byte of each, from strings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from zsml_jax.evaluate.bootstrap import Interval, bootstrap_interval
from zsml_jax.evaluate.continuations import causal_logits
from zsml_jax.evaluate.language_modelling import bits_per_byte, perplexity_per_token, token_nats
from zsml_jax.models.batches import round_length
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.tokenizer import Tokenizer, check_texts
from zsml_jax.typing import Key, Params


class TextScores(NamedTuple):
    """What a model needs for each of some texts.

    Attributes:
      nats: the negative log-likelihood of each text, ``(n,)``.
      num_tokens: tokens of each text.
      num_bytes: bytes of each text in UTF-8.
    """

    nats: Float64[np.ndarray, " n"]
    num_tokens: Int64[np.ndarray, " n"]
    num_bytes: Int64[np.ndarray, " n"]

    @property
    def perplexity(self) -> float:
        """The perplexity per token over all texts."""
        return float(perplexity_per_token(self.nats, self.num_tokens))

    @property
    def bits_per_byte(self) -> float:
        """The bits for a byte over all texts, which do not depend on the tokenizer."""
        return float(bits_per_byte(self.nats, self.num_bytes))

    def perplexity_interval(self, *, key: Key, level: float = 0.95) -> Interval:
        """Returns the perplexity with its bootstrap interval over texts, of which there must be at least two."""
        return bootstrap_interval(perplexity_per_token, self.nats, self.num_tokens, key=key, level=level)


def perplexity(
    pretrained: Pretrained,
    texts: Sequence[str],
    *,
    params: Params | None = None,
    start_token: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int = 8,
) -> TextScores:
    """Scores each token of each text once, in windows that overlap, as :func:`zsml_jax.evaluate.token_nats` says.

    For example::

        scores = evaluate.perplexity(pretrained, texts, context=1024, stride=512)
        scores.perplexity, scores.bits_per_byte

    One program is compiled for a model and a context, whatever the parameters are.

    Args:
      pretrained: a causal language model with a tokenizer.
      texts: the texts; none may be empty.
      params: parameters to use in place of the model's own.
      start_token: the id of what stands before each text; that of :func:`start_id` if None.
      context: tokens that a window reads; 1024 if None, or the model's longest sequence if that is less. No more
        columns are computed than the longest text needs.
      stride: tokens between two windows; half the context if None.
      batch_size: windows in a batch.

    Returns:
      The scores of each text.

    Raises:
      ValueError: if the model is no causal language model with a tokenizer, a text is empty, or a number is out of its
        range.
    """
    tokenizer = _tokenizer(pretrained)
    check_texts(texts, "texts")
    if "" in texts:
        raise ValueError(f"texts must not be empty, got '' at {list(texts).index('')}")
    longest: int = pretrained.config.max_length
    if context is not None and not 1 <= context <= longest:
        raise ValueError(f"context must lie in 1 ... {longest}, the model's longest sequence, got {context}")
    documents = [np.asarray(tokenizer.encode_plain(text)) for text in texts]
    context = min(1024, longest) if context is None else context
    stride = (context + 1) // 2 if stride is None else stride
    if not 1 <= stride <= context:
        raise ValueError(f"context and stride must have 1 <= stride <= context, got {stride} and {context}")
    needed = min(context, round_length(max(map(len, documents))))
    nats = token_nats(
        causal_logits(pretrained.module),
        pretrained.params if params is None else params,
        documents,
        start_token=start_id(tokenizer) if start_token is None else start_token,
        context=needed,
        stride=min(needed, stride),
        batch_size=batch_size,
    )
    return TextScores(
        nats=np.array([float(scores.sum()) for scores in nats]),
        num_tokens=np.array([len(document) for document in documents]),
        num_bytes=np.array([len(text.encode()) for text in texts]),
    )


def start_id(tokenizer: Tokenizer) -> int:
    """Returns the id of what stands before a text: the tokenizer's beginning of text, or else its end of text.

    Raises:
      ValueError: if the tokenizer has neither.
    """
    for role in ("bos_token", "eos_token"):
        if (token := tokenizer.token_id(tokenizer.special.get(role, ""))) is not None:
            return token
    raise ValueError(f"start_token must be given for a tokenizer whose special tokens are {tokenizer.special}")


def _tokenizer(pretrained: Pretrained) -> Tokenizer:
    if pretrained.tokenizer is None or not hasattr(pretrained.module, "init_cache"):
        raise ValueError(
            f"pretrained must be a causal language model with a tokenizer, got a {type(pretrained.module).__name__} "
            f"with{'out' if pretrained.tokenizer is None else ''} a tokenizer"
        )
    return pretrained.tokenizer
