r"""Log-likelihoods of continuations: what a language model gives the tokens that follow a context.

The common ground of probes and of the evaluation harness. Rows of like length share a batch, so that a task compiles a
handful of programs; parameters are arguments of these, so that a compressed model compiles none of its own.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float64

from zsml_jax.evaluate.language_modelling import LogitsFn
from zsml_jax.models.batches import plan_batches, round_length
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.t5 import T5
from zsml_jax.typing import Array, Params, PyTree

#: The decoder of T5 begins with its padding token (Raffel et al., 2020, section 2.1).
T5_START = 0


class Continuation(NamedTuple):
    """Token ids of a context, of at least one token, and of what follows it.

    An encoder-decoder reads the context as its source.
    """

    context: Sequence[int]
    tokens: Sequence[int]


@flax.struct.dataclass
class Scored:
    """What a model gives each token of a continuation.

    Attributes:
      log_probs: the log-probability of each token after those before it, in nats.
      is_best: whether no token is more likely there.
    """

    log_probs: Float64[np.ndarray, " t"]
    is_best: Bool[np.ndarray, " t"]

    @property
    def total(self) -> float:
        """The log-probability of the continuation."""
        return float(self.log_probs.sum())

    @property
    def is_greedy(self) -> bool:
        """Whether greedy decoding writes the continuation."""
        return bool(self.is_best.all())


def score_continuations(
    pretrained: Pretrained,
    continuations: Sequence[Continuation],
    *,
    params: Params | None = None,
    max_length: int | None = None,
    batch_tokens: int = 2048,
) -> list[Scored]:
    """Scores the tokens of each continuation.

    Args:
      pretrained: a causal language model or an encoder-decoder.
      continuations: the contexts and what follows them.
      params: parameters to use in place of the model's own.
      max_length: tokens that the model reads at a time; of longer rows the first are left out. The model's longest
        sequence if None.
      batch_tokens: about so many tokens make a batch; scores of all words are in memory for each.

    Returns:
      The scores, in order.

    Raises:
      ValueError: if a context or continuation is empty, a continuation is longer than the model reads, the model is of
        another kind, or a score is not finite.
    """
    longest = pretrained.config.max_length if max_length is None else max_length
    for i, (context, tokens) in enumerate(continuations):
        if not len(context) or not 0 < len(tokens) <= longest:
            raise ValueError(
                f"continuations must have a context and 1 ... {longest} tokens, got {len(context)} and {len(tokens)} "
                f"at {i}"
            )
    if batch_tokens < 1 or longest < 1:
        raise ValueError(f"batch_tokens and max_length must be at least 1, got {batch_tokens} and {longest}")
    if not continuations:
        return []
    params = pretrained.params if params is None else params
    run = _of_decoder if isinstance(pretrained.module, T5) else _of_causal
    scored = run(pretrained, continuations, params, longest, batch_tokens)
    if bad := [i for i, row in enumerate(scored) if not np.isfinite(row.log_probs).all()]:
        raise ValueError(f"params must give finite scores; those of continuation {bad[0]} are not")
    return scored


@functools.cache
def causal_logits(module: Any) -> LogitsFn:
    """Returns the logits function of a causal language model, the same for the same module.

    Raises:
      ValueError: if it is none.
    """
    if not hasattr(module, "init_cache"):
        raise ValueError(f"pretrained must be a causal language model, got a {type(module).__name__}")
    return lambda params, tokens: module.apply({"params": params}, tokens).logits


def _of_causal(
    pretrained: Pretrained, continuations: Sequence[Continuation], params: Params, longest: int, batch_tokens: int
) -> list[Scored]:
    whole = [np.asarray([*context, *tokens], np.int32)[-(longest + 1) :] for context, tokens in continuations]
    apply_fn = causal_logits(pretrained.module)
    found: list[Any] = [None] * len(whole)
    for rows, size, length in _batches([len(row) - 1 for row in whole], longest, batch_tokens):
        # Causal models do not see the padding, which is on the right.
        tokens, targets = np.zeros((2, size, length), np.int32)
        for i, row in enumerate(rows):
            count = len(whole[row]) - 1
            tokens[i, :count], targets[i, :count] = whole[row][:-1], whole[row][1:]
        log_probs, is_best = map(np.asarray, _score(apply_fn, params, tokens, targets))
        for i, row in enumerate(rows):
            end = len(whole[row]) - 1
            span = slice(end - len(continuations[row].tokens), end)
            found[row] = Scored(log_probs[i, span].astype(np.float64), is_best[i, span])
    return found


def _of_decoder(
    pretrained: Pretrained, continuations: Sequence[Continuation], params: Params, longest: int, batch_tokens: int
) -> list[Scored]:
    found: list[Any] = [None] * len(continuations)
    sources = [np.asarray(each.context, np.int32)[-longest:] for each in continuations]
    width = round_length(max(len(each.tokens) for each in continuations))
    for rows, size, length in _batches([len(source) for source in sources], longest, batch_tokens):
        source, mask = np.zeros((2, size, length), np.int32)
        mask[:, 0] = 1  # a row that holds nothing must have a token, too
        inputs, targets = np.zeros((2, size, width), np.int32)
        for i, row in enumerate(rows):
            tokens = continuations[row].tokens
            source[i, : len(sources[row])], mask[i, : len(sources[row])] = sources[row], 1
            inputs[i, : len(tokens)] = [T5_START, *tokens[:-1]]
            targets[i, : len(tokens)] = tokens
        scores = _score(decoder_logits(pretrained.module), params, (source, mask, inputs), targets)
        log_probs, is_best = map(np.asarray, scores)
        for i, row in enumerate(rows):
            count = len(continuations[row].tokens)
            found[row] = Scored(log_probs[i, :count].astype(np.float64), is_best[i, :count])
    return found


@functools.cache
def decoder_logits(module: Any) -> Any:
    """Returns the function from ``(source, mask, decoder_tokens)`` to the logits of an encoder-decoder's decoder."""
    return lambda params, inputs: (
        module.apply({"params": params}, inputs[0], inputs[1], decoder_tokens_BxT=inputs[2]).logits
    )


def _batches(lengths: Sequence[int], longest: int, batch_tokens: int) -> list[tuple[np.ndarray, int, int]]:
    widest = min(longest, round_length(max(lengths)))
    planned = plan_batches(lengths, max_length=widest, batch_size=max(1, batch_tokens // widest))
    return [(batch.rows, batch.size, batch.length) for batch in planned]


@functools.partial(jax.jit, static_argnums=0)
def _score(apply_fn: Any, params: PyTree, inputs: PyTree, targets_BxT: Array) -> tuple[Array, Array]:
    logits_BxTxV = apply_fn(params, inputs).astype(jnp.float32)
    own_BxT = jnp.take_along_axis(logits_BxTxV, targets_BxT[..., None], axis=-1)[..., 0]
    best_BxT = logits_BxTxV.max(axis=-1)
    is_first_BxT = jnp.argmax(logits_BxTxV == best_BxT[..., None], axis=-1) == targets_BxT
    return own_BxT - jax.nn.logsumexp(logits_BxTxV, axis=-1), is_first_BxT
