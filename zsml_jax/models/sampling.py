r"""How the next token is chosen from scores: greedily, or drawn from a sharpened and cut-off distribution.

The order is that of the usual warpers: repetition penalty, temperature, then the cuts by rank, by cumulative
probability (nucleus) and by probability relative to the largest. Every setting is a traced number, one for all rows or
one for each, so that a change compiles nothing; a setting that is None takes no part in the program.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from jaxtyping import Key as KeyOf

from zsml_jax.typing import AnyArray, Array, Scalar


@flax.struct.dataclass
class Sampling:
    """Settings of a draw, a pytree; each is None, a number, or one number for each row ``(b,)``.

    Attributes:
      temperature: divides the scores; None takes the best token.
      top_k: keeps the ``top_k`` best tokens, and those that tie with the last of them (Fan et al., 2018).
      top_p: keeps the fewest best tokens whose probabilities sum to ``top_p`` (Holtzman et al., 2020).
      min_p: keeps tokens of at least ``min_p`` times the best one's probability (Nguyen et al., 2024).
      repetition_penalty: divides positive scores, and multiplies negative ones, of tokens that were seen before
        (Keskar et al., 2019, section 4.1); 1 changes nothing.
    """

    temperature: Float[AnyArray, "*b"] | Scalar | None = None
    top_k: Int[AnyArray, "*b"] | Scalar | None = None
    top_p: Float[AnyArray, "*b"] | Scalar | None = None
    min_p: Float[AnyArray, "*b"] | Scalar | None = None
    repetition_penalty: Float[AnyArray, "*b"] | Scalar | None = None


def check_sampling(sampling: Sampling, batch: int) -> None:
    """Checks settings that are known before tracing.

    Raises:
      ValueError: if one is out of its range, of another shape than () or (b,), or cuts without a temperature.
    """
    ranges = {
        "temperature": (lambda x: x > 0, "positive; leave it out for the best token"),
        "top_k": (lambda x: x >= 1, "at least 1"),
        "top_p": (lambda x: (x > 0) & (x <= 1), "in (0, 1]"),
        "min_p": (lambda x: (x >= 0) & (x <= 1), "in [0, 1]"),
        "repetition_penalty": (lambda x: x > 0, "positive"),
    }
    for name, (is_sound, wanted) in ranges.items():
        value = getattr(sampling, name)
        if value is None:
            continue
        if np.shape(value) not in ((), (batch,)):
            raise ValueError(f"{name} must be one number or one for each of the {batch} rows, got {np.shape(value)}")
        if not isinstance(value, jax.core.Tracer) and not np.all(is_sound(np.asarray(value))):
            raise ValueError(f"{name} must be {wanted}, got {value}")
        if sampling.temperature is None and name in ("top_k", "top_p", "min_p"):
            raise ValueError(f"{name} needs a temperature: without one the best token is taken")


def warped(
    logits: Float[AnyArray, "b v"], sampling: Sampling, seen: Bool[AnyArray, "b v"] | None = None
) -> Float[Array, "b v"]:
    """Returns the scores that are drawn from: penalised, divided by the temperature, -inf where they are cut off.

    >>> scores = warped(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), Sampling(temperature=1.0, top_p=0.6))
    >>> jnp.isfinite(scores).tolist()
    [[True, True, False]]

    Args:
      logits: scores of the next token.
      sampling: the settings.
      seen: true at tokens that the repetition penalty is for; none if None.

    Returns:
      The scores, float32.
    """
    scores = jnp.asarray(logits, jnp.float32)
    if sampling.repetition_penalty is not None and seen is not None:
        penalty = _column(sampling.repetition_penalty)
        scores = jnp.where(seen, jnp.where(scores > 0, scores / penalty, scores * penalty), scores)
    if sampling.temperature is None:
        return scores
    scores = scores / _column(sampling.temperature)
    if sampling.top_k is not None or sampling.top_p is not None:
        scores = jnp.where(scores >= _threshold(scores, sampling), scores, -jnp.inf)
    if sampling.min_p is not None:
        least = scores.max(axis=-1, keepdims=True) + jnp.log(_column(sampling.min_p))
        scores = jnp.where(scores >= least, scores, -jnp.inf)
    return scores


def next_tokens(
    logits: Float[AnyArray, "b v"],
    sampling: Sampling,
    keys: KeyOf[Array, " b"],
    seen: Bool[AnyArray, "b v"] | None = None,
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """Chooses a token for each row.

    Args:
      logits: scores of the next token.
      sampling: the settings; without a temperature the best token is taken, the first on ties.
      keys: one key for each row, ``(b,)``; unused without a temperature.
      seen: as in :func:`warped`.

    Returns:
      The tokens, and their log-probabilities under the model itself, before any setting, in nats.
    """
    scores = warped(logits, sampling, seen)
    if sampling.temperature is None:
        # The largest, then where it is: on CPU half the time of one reduction over pairs of both.
        tokens = jnp.argmax(scores == scores.max(axis=-1, keepdims=True), axis=-1)
    else:
        tokens = jax.vmap(jax.random.categorical)(keys, scores)
    logits = jnp.asarray(logits, jnp.float32)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(logits, axis=-1)


def _threshold(scores: Array, sampling: Sampling) -> Array:
    """The least score that is kept, ``(b, 1)``; both cuts are read off one sorted copy."""
    descending = -jnp.sort(-scores, axis=-1)
    kept = jnp.ones_like(descending, bool)
    if sampling.top_k is not None:
        rank = jnp.minimum(_column(sampling.top_k), scores.shape[-1]).astype(jnp.int32) - 1
        rank = jnp.broadcast_to(rank, (scores.shape[0], 1))
        kept = descending >= jnp.take_along_axis(descending, rank, axis=-1)
    if sampling.top_p is not None:
        probs = jax.nn.softmax(jnp.where(kept, descending, -jnp.inf), axis=-1)
        kept &= jnp.cumsum(probs, axis=-1) - probs < _column(sampling.top_p)
    return jnp.min(jnp.where(kept, descending, jnp.inf), axis=-1, keepdims=True)


def _column(value: AnyArray | Scalar) -> Array:
    return jnp.reshape(jnp.asarray(value), (-1, 1))
