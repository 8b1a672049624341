r"""How well a language model predicts texts: perplexity per token, and bits per byte.

Perplexities of models with different tokenizers cannot be compared, bits per byte can: both count the same text. As a
text can be written in other tokens than the tokenizer's, bits per byte is an upper bound of what the model needs.

A document longer than the model's context is read in windows that overlap. Each token is scored once, in the first
window that holds it, so that all but those of the first window have seen at least ``context - stride`` others::

    nats = token_nats(apply_fn, params, documents, start_token=0, context=1024, stride=512)
    sums = np.array([document.sum() for document in nats])
    interval = bootstrap_interval(bits_per_byte, sums, num_bytes, key=key)  # over documents

:func:`zsml_jax.evaluate.perplexity` does all of it for a pretrained model and its texts.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Integer, Shaped

from zsml_jax.evaluate.validation import is_traced
from zsml_jax.typing import AnyArray, Array, PyTree

#: ``(params, tokens_BxT) -> logits_BxTxV`` of the tokens that follow, of a causal model.
LogitsFn = Callable[[PyTree, Array], Array]


def bits_per_byte(nats: Shaped[AnyArray, " n"], num_bytes: Shaped[AnyArray, " n"]) -> Float[Array, ""]:
    r"""Returns the bits that a model needs for a byte, :math:`\sum_i \ell_i / (\ln 2 \sum_i b_i)`.

    >>> float(bits_per_byte(np.log([4.0, 16.0]), np.array([1, 2])))
    2.0

    Args:
      nats: the negative log-likelihood of each document.
      num_bytes: the length of each document in UTF-8.

    Raises:
      ValueError: if the shapes differ, or a document has no bytes.
    """
    _check(nats, num_bytes, "num_bytes")
    return jnp.sum(jnp.asarray(nats)) / (math.log(2) * jnp.sum(jnp.asarray(num_bytes)))


def perplexity_per_token(nats: Shaped[AnyArray, " n"], num_tokens: Shaped[AnyArray, " n"]) -> Float[Array, ""]:
    r"""Returns the perplexity per token, :math:`\exp(\sum_i \ell_i / \sum_i t_i)`.

    >>> round(float(perplexity_per_token(np.log([4.0, 16.0]), np.array([1, 2]))), 4)
    4.0

    Args:
      nats: the negative log-likelihood of each document.
      num_tokens: the number of tokens of each document.

    Raises:
      ValueError: if the shapes differ, or a document has no tokens.
    """
    _check(nats, num_tokens, "num_tokens")
    return jnp.exp(jnp.sum(jnp.asarray(nats)) / jnp.sum(jnp.asarray(num_tokens)))


def next_token_nats(logits: Float[AnyArray, "*b v"], targets: Int[AnyArray, "*b"]) -> Float32[Array, "*b"]:
    r"""Returns :math:`-\log p(y)` of each target, in nats.

    >>> round(float(next_token_nats(jnp.log(jnp.array([0.5, 0.25, 0.25])), jnp.array(1))), 4)
    1.3863

    Args:
      logits: scores of the tokens that may come next, up to a constant.
      targets: the tokens that do.
    """
    logits = jnp.asarray(logits, jnp.float32)
    picked = jnp.take_along_axis(logits, jnp.asarray(targets)[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def token_nats(
    apply_fn: LogitsFn,
    params: PyTree,
    documents: Sequence[Integer[np.ndarray, " _"]],
    *,
    start_token: int,
    context: int,
    stride: int | None = None,
    batch_size: int = 8,
) -> list[Float64[np.ndarray, " _"]]:
    r"""Scores each token of each document once, :math:`-\log p(x_t \mid x_{<t})`.

    Args:
      apply_fn: a causal model; give the same function again and it is not compiled again.
      params: its parameters.
      documents: token ids.
      start_token: stands before the first token of each document, which would have nothing to be predicted from.
      context: tokens that a window reads, the start token included; shorter documents are padded to it.
      stride: tokens between two windows; half the context if None. A stride of 1 gives each token the whole context
        and costs as many windows as there are tokens.
      batch_size: windows in a batch.

    Returns:
      For each document the negative log-likelihoods of its tokens, in nats.

    Raises:
      ValueError: if a document is empty, a number is out of its range, or a score is not finite.
    """
    stride = (context + 1) // 2 if stride is None else stride
    if context < 1 or not 1 <= stride <= context:
        raise ValueError(f"context and stride must have 1 <= stride <= context, got {stride} and {context}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if (empty := [i for i, document in enumerate(documents) if not len(document)]) or not len(documents):
        raise ValueError(
            f"documents must hold tokens, and {f'document {empty[0]} holds' if empty else 'there are'} none"
        )
    windows = [window for i, document in enumerate(documents) for window in _windows(i, len(document), context, stride)]
    inputs = [np.concatenate([[start_token], document[:-1]]) for document in documents]
    scores = [np.zeros(len(document)) for document in documents]
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        # Causal models do not see the padding, which is on the right.
        tokens, targets = np.zeros((2, batch_size, context), np.int32)
        for row, window in enumerate(batch):
            span = slice(window.begin, window.end)
            tokens[row, : window.end - window.begin] = inputs[window.document][span]
            targets[row, : window.end - window.begin] = documents[window.document][span]
        nats_BxT = np.asarray(_nats(apply_fn, params, tokens, targets))
        for row, window in enumerate(batch):
            fresh = slice(window.fresh - window.begin, window.end - window.begin)
            scores[window.document][window.fresh : window.end] = nats_BxT[row, fresh]
    if bad := [i for i, score in enumerate(scores) if not np.isfinite(score).all()]:
        raise ValueError(f"apply_fn must give finite scores; those of document {bad[0]} are not")
    return scores


class _Window(NamedTuple):
    """Tokens begin ... end of a document, of which those from ``fresh`` on have not been scored before."""

    document: int
    begin: int
    end: int
    fresh: int


def _windows(document: int, length: int, context: int, stride: int) -> list[_Window]:
    windows = [_Window(document, 0, min(context, length), 0)]
    while (last := windows[-1]).end < length:
        begin = last.begin + stride
        windows.append(_Window(document, begin, min(begin + context, length), last.end))
    return windows


@functools.partial(jax.jit, static_argnums=0)
def _nats(apply_fn: LogitsFn, params: PyTree, tokens_BxT: Array, targets_BxT: Array) -> Array:
    return next_token_nats(apply_fn(params, tokens_BxT), targets_BxT)


def _check(nats: AnyArray, counts: AnyArray, name: str) -> None:
    if np.ndim(nats) != 1 or np.shape(nats) != np.shape(counts):
        raise ValueError(f"nats and {name} must share one axis, got shapes {np.shape(nats)} and {np.shape(counts)}")
    if not is_traced(counts) and not (np.asarray(counts) > 0).all():
        raise ValueError(f"{name} must be positive, got {np.min(counts)}")
