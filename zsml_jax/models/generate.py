"""Text generation: a prompt is read at once, then a compiled loop writes a token at a time into a static cache.

Two programs do the work. *Prefill* reads the padded prompts in one pass; prompts are padded to a few lengths, so that
few programs are compiled. *Decode* is a ``lax.while_loop`` whose cache is donated and which ends when every row has
stopped. It runs to the end, or in strides where someone listens: a callback, or a stop string, which only the decoded
text can show.
"""

import functools
import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int, Int32
from jaxtyping import Key as KeyOf

from zsml_jax.models.batches import round_length
from zsml_jax.models.outputs import LmOutput
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.sampling import Sampling, check_sampling, next_tokens
from zsml_jax.models.stop_strings import StopStrings
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.typing import AnyArray, Array, PyTree, Scalar

_LISTENING_STRIDE = 8  # tokens between two looks at the text

#: ``(params, tokens, is_token, cache=..., only_last=...) -> LmOutput``; the parameters may be any pytree.
CachedApply = Callable[..., LmOutput]
#: Called with the rows' new tokens since the last call, ``(b, t)``, and how many of each row count, ``(b,)``.
Listener = Callable[[Int32[np.ndarray, "b t"], Int32[np.ndarray, " b"]], None]


class Generation(NamedTuple):
    """What was generated.

    Attributes:
      tokens: the new tokens, ``(b, max_new_tokens)``; padding after the end of a row.
      lengths: the number of new tokens of each row, the stop token included, ``(b,)``.
      log_probs: the model's log-probability of each new token, before any sampling setting, nats; 0 at padding.
      finished: whether a row met a stop token or a stop string, ``(b,)``, rather than ``max_new_tokens``.
    """

    tokens: Int32[np.ndarray, "b t"]
    lengths: Int32[np.ndarray, " b"]
    log_probs: Float32[np.ndarray, "b t"]
    finished: Bool[np.ndarray, " b"]

    def texts(self, tokenizer: Tokenizer) -> list[str]:
        """Returns the new text of each row, without special tokens."""
        return [tokenizer.decode(row[:n]) for row, n in zip(self.tokens, self.lengths, strict=True)]


def generate(
    pretrained: Pretrained,
    tokens: Int[AnyArray, "b t"],
    *,
    max_new_tokens: int,
    attention_mask: Int[AnyArray, "b t"] | Bool[AnyArray, "b t"] | None = None,
    sampling: Sampling | None = None,
    key: KeyOf[Array, "*b"] | None = None,
    stop_tokens: Sequence[int] | None = None,
    stop_strings: Sequence[str] = (),
    listener: Listener | None = None,
    params: PyTree | None = None,
    apply_fn: CachedApply | None = None,
) -> Generation:
    """Continues prompts.

    To write with a model that is adapted or steered, give an ``apply_fn`` that wraps ``pretrained.module.apply``, made
    once so that it is compiled once, and in ``params`` all arrays that may change, in any structure that it knows::

        def steered(params, tokens, is_token, **cache):
            base = lambda weights, *args, **kwargs: pretrained.module.apply({"params": weights}, *args, **kwargs)
            edited = transform.edit(base, sites, add, per_layer=params["vectors"])
            return edited(params["model"], tokens, is_token, **cache)

        generate(pretrained, tokens, params={"model": pretrained.params, "vectors": v}, apply_fn=steered, ...)

    Args:
      pretrained: a causal language model.
      tokens: the prompts' token ids.
      max_new_tokens: how many tokens to write at most.
      attention_mask: non-zero at tokens, 0 at padding on either side; all are tokens if None.
      sampling: how tokens are drawn; the best one each time if None.
      key: one key, from which each row gets its own, or one for each row ``(b,)``; needed with a temperature. A row
        depends on its own key and prompt only, whatever else is in the batch.
      stop_tokens: ids that end a row, and are its last token; the tokenizer's end of text if None.
      stop_strings: a row ends with the token that completes one of them; needs the model's tokenizer.
      listener: is called with what is new every few tokens, for streaming.
      params: parameters to use in place of ``pretrained.params``.
      apply_fn: the model to use in place of ``pretrained.module``, whose cache it keeps.

    Returns:
      The new tokens, on the host.

    Raises:
      ValueError: if arguments do not fit each other, a row is all padding, or the prompt and the new tokens are more
        than the positions that the model has learned.
    """
    tokens, is_token = _checked_prompts(pretrained, tokens, attention_mask)
    batch, length = tokens.shape
    if not isinstance(max_new_tokens, numbers.Integral) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be an integer of at least 1, got {max_new_tokens!r}")
    limit = pretrained.module.max_tokens
    longest = int(is_token.sum(axis=1).max())
    if limit is not None and longest + max_new_tokens > limit:
        raise ValueError(
            f"prompt and max_new_tokens must be at most {limit} tokens, the positions that the model has learned; got "
            f"{longest} + {max_new_tokens}"
        )
    sampling = sampling or Sampling()
    check_sampling(sampling, batch)
    keys = _row_keys(key, batch, needed=sampling.temperature is not None)
    stops = _stop_tokens(pretrained, stop_tokens)
    strings = StopStrings(pretrained.tokenizer, stop_strings, batch)

    bucket = round_length(length)
    bucket = bucket if limit is None else max(length, min(bucket, limit))
    padding = ((0, 0), (bucket - length, 0))
    tokens, is_token = np.pad(tokens, padding), np.pad(is_token, padding)
    module = pretrained.module
    model = _apply_of(module) if apply_fn is None else apply_fn
    params = pretrained.params if params is None else params
    capacity = round_length(max_new_tokens)
    state = _prefill(model, module, params, tokens, is_token, sampling, keys, stops, capacity=capacity)
    listening = listener is not None or stop_strings
    heard = 0
    for until in [*(range(1, max_new_tokens, _LISTENING_STRIDE) if listening else ()), max_new_tokens]:
        state = _decode(model, params, state, sampling, keys, stops, until)
        written, lengths = np.asarray(state.tokens), np.asarray(state.lengths)
        if stop_strings:
            ended = strings.ended(written, lengths)
            state = state._replace(is_done=state.is_done | ended.is_done, lengths=jnp.asarray(ended.lengths))
            lengths = ended.lengths
        if listener is not None:
            listener(written[:, heard:until], np.clip(lengths - heard, 0, until - heard))
            heard = until
        if bool(state.is_done.all()):
            break
    return _on_host(state, max_new_tokens)


class _State(NamedTuple):
    """The loop's carry: a pytree of fixed shapes, donated from stride to stride."""

    step: Array  # tokens written so far
    last_B: Array  # the newest token of each row, not yet read
    cache: PyTree
    tokens: Array  # (b, capacity)
    log_probs: Array  # (b, capacity)
    lengths: Array  # (b,)
    is_done: Array  # (b,)
    seen_BxV: Array | None  # for the repetition penalty


@functools.cache
def _apply_of(module: nn.Module) -> CachedApply:
    """The same function for the same module, so that it is compiled once."""

    def apply_fn(params: PyTree, *args: AnyArray, **cache: Any) -> LmOutput:
        output: Any = module.apply({"params": params}, *args, **cache)
        return output

    return apply_fn


@functools.partial(jax.jit, static_argnames=("apply_fn", "module", "capacity"))
def _prefill(
    apply_fn: CachedApply,
    module: nn.Module,
    params: PyTree,
    tokens_BxT: Array,
    is_token_BxT: Array,
    sampling: Sampling,
    keys: Array,
    stops: Array,
    *,
    capacity: int,
) -> _State:
    """Reads the prompts and writes the first token."""
    batch, length = tokens_BxT.shape
    cache = module.init_cache(batch, length + capacity)
    output = apply_fn(params, tokens_BxT, is_token_BxT, cache=cache, only_last=True)
    logits_BxV = output.logits[:, -1]
    seen_BxV = None
    if sampling.repetition_penalty is not None:
        rows = jnp.arange(batch)[:, None]
        seen_BxV = jnp.zeros(logits_BxV.shape, bool).at[rows, tokens_BxT].max(is_token_BxT)
    empty = _State(
        step=jnp.zeros((), jnp.int32),
        last_B=jnp.zeros(batch, jnp.int32),
        cache=output.cache,
        tokens=jnp.zeros((batch, capacity), jnp.int32),
        log_probs=jnp.zeros((batch, capacity), jnp.float32),
        lengths=jnp.zeros(batch, jnp.int32),
        is_done=jnp.zeros(batch, bool),
        seen_BxV=seen_BxV,
    )
    return _written(empty, logits_BxV, sampling, keys, stops)


@functools.partial(jax.jit, static_argnames="apply_fn", donate_argnames="state")
def _decode(
    apply_fn: CachedApply, params: PyTree, state: _State, sampling: Sampling, keys: Array, stops: Array, until: Scalar
) -> _State:
    """Writes tokens until there are ``until`` of them, or every row is done."""

    def unfinished(state: _State) -> Array:
        return (state.step < until) & ~state.is_done.all()

    def body(state: _State) -> _State:
        goes_on_Bx1 = ~state.is_done[:, None]
        output = apply_fn(params, state.last_B[:, None], goes_on_Bx1, cache=state.cache)
        return _written(state._replace(cache=output.cache), output.logits[:, -1], sampling, keys, stops)

    return jax.lax.while_loop(unfinished, body, state)


def _written(state: _State, logits_BxV: Array, sampling: Sampling, keys: Array, stops: Array) -> _State:
    """The state with one more token in each row that goes on."""
    step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
    token_B, log_prob_B = next_tokens(logits_BxV, sampling, step_keys, state.seen_BxV)
    token_B = jnp.where(state.is_done, 0, token_B)
    log_prob_B = jnp.where(state.is_done, 0.0, log_prob_B)
    seen_BxV = state.seen_BxV
    if seen_BxV is not None:
        seen_BxV = seen_BxV.at[jnp.arange(len(token_B)), token_B].max(~state.is_done)
    return _State(
        step=state.step + 1,
        last_B=token_B,
        cache=state.cache,
        tokens=jax.lax.dynamic_update_slice(state.tokens, token_B[:, None], (0, state.step)),
        log_probs=jax.lax.dynamic_update_slice(state.log_probs, log_prob_B[:, None], (0, state.step)),
        lengths=state.lengths + ~state.is_done,
        is_done=state.is_done | (token_B[:, None] == stops).any(axis=1),
        seen_BxV=seen_BxV,
    )


def _on_host(state: _State, max_new_tokens: int) -> Generation:
    lengths = np.asarray(state.lengths)
    counts = np.arange(max_new_tokens) < lengths[:, None]
    return Generation(
        tokens=np.where(counts, np.asarray(state.tokens)[:, :max_new_tokens], 0),
        lengths=lengths,
        log_probs=np.where(counts, np.asarray(state.log_probs)[:, :max_new_tokens], np.float32(0)),
        finished=np.asarray(state.is_done),
    )


def _checked_prompts(
    pretrained: Pretrained, tokens: AnyArray, attention_mask: AnyArray | None
) -> tuple[np.ndarray, np.ndarray]:
    if not hasattr(pretrained.module, "init_cache"):
        raise ValueError(f"pretrained must be a causal language model, got a {type(pretrained.module).__name__}")
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or tokens.size == 0 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(f"tokens must be integers (b, t) of non-zero size, got {tokens.dtype} {tokens.shape}")
    low, high, rows = tokens.min(), tokens.max(), pretrained.config.vocab_size
    if low < 0 or high >= rows:
        raise ValueError(f"tokens must lie in 0 ... {rows - 1}, got {low} ... {high}")
    is_token = np.ones(tokens.shape, bool) if attention_mask is None else np.asarray(attention_mask) != 0
    if is_token.shape != tokens.shape:
        raise ValueError(f"attention_mask must have the shape {tokens.shape}, got {is_token.shape}")
    if (empty := np.flatnonzero(~is_token.any(axis=1))).size:
        raise ValueError(f"attention_mask must leave every row a token, but row {empty[0]} has none")
    return tokens.astype(np.int32), is_token


def _row_keys(key: Array | None, batch: int, *, needed: bool) -> Array:
    if key is None:
        if needed:
            raise ValueError("key must be given with a temperature")
        key = jax.random.key(0)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(f"key must be one key or one for each of the {batch} rows, got {key.shape}")
    return key


def _stop_tokens(pretrained: Pretrained, stop_tokens: Sequence[int] | None) -> Int32[np.ndarray, " s"]:
    if stop_tokens is None:
        tokenizer = pretrained.tokenizer
        end = None if tokenizer is None else tokenizer.token_id(tokenizer.special.get("eos_token", ""))
        stop_tokens = () if end is None else (end,)
    ids = np.asarray(stop_tokens, np.int32)
    if ids.ndim != 1 or (ids < 0).any() or (ids >= pretrained.config.vocab_size).any():
        raise ValueError(f"stop_tokens must be ids in 0 ... {pretrained.config.vocab_size - 1}, got {stop_tokens}")
    return ids
