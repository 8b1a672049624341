"""Multiple-choice questions by the letters of their options, from one pass over each prompt."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from zsml_jax.evaluate.cloze import Cloze, blank_logits, cloze_batches, object_token
from zsml_jax.evaluate.text_scores import start_id
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.tokenizer import check_texts
from zsml_jax.typing import Array, Params, PyTree

#: The names of options, in order.
LETTERS = "ABCDEFGHIJ"


def question(text: str, options: Sequence[str]) -> str:
    r"""Returns a prompt that ends where the letter of the right option stands.

    >>> question("2 + 2 =", ["three", "four"])
    'Question: 2 + 2 =\nA. three\nB. four\nAnswer:'

    Args:
      text: the question.
      options: what to choose from, two to ten.

    Raises:
      ValueError: if there are fewer or more.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"options must be 2 to {len(LETTERS)}, got {len(options)}")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([f"Question: {text}", *lines, "Answer:"])


def next_word_log_probs(
    pretrained: Pretrained,
    prompts: Sequence[str],
    words: Sequence[str],
    *,
    params: Params | None = None,
    batch_tokens: int = 4096,
) -> Float32[np.ndarray, "n k"]:
    """Returns the log-probability of each of some words right after each prompt, in nats.

    They are of the model's whole vocabulary; ``jax.nn.log_softmax`` makes them those of a choice among the words.

    Args:
      pretrained: a causal language model with a tokenizer.
      prompts: the prompts, such as those of :func:`question`.
      words: words that are one token each after a space, such as letters of options.
      params: parameters to use in place of the model's own.
      batch_tokens: about so many tokens make a batch.

    Raises:
      ValueError: if the model is of another kind, a word is not one token, a prompt is too long, or a score is not
        finite.
    """
    tokenizer = pretrained.tokenizer
    if tokenizer is None or not hasattr(pretrained.module, "init_cache"):
        raise ValueError("pretrained must be a causal language model with a tokenizer")
    check_texts(prompts, "prompts")
    check_texts(words, "words")
    tokens = [object_token(tokenizer, word) for word in words]
    if None in tokens:
        raise ValueError(f"words must be one token each, {words[tokens.index(None)]!r} is not")
    before, _ = tokenizer.added_tokens()
    ids = [[*before, *tokenizer.encode_plain(prompt)] or [start_id(tokenizer)] for prompt in prompts]
    longest = max(map(len, ids))
    if longest > pretrained.config.max_length:
        raise ValueError(f"prompts must have at most {pretrained.config.max_length} tokens, got {longest}")
    clozes = {i: Cloze(row, len(row)) for i, row in enumerate(ids)}
    apply_fn = blank_logits(pretrained.module, "causal")
    params = pretrained.params if params is None else params
    found = np.zeros((len(prompts), len(words)), np.float32)
    for rows, inputs in cloze_batches(clozes, pretrained.config.max_length, tokenizer.pad_id, batch_tokens):
        scores = np.asarray(_of_words(apply_fn, params, inputs, np.asarray(tokens, np.int32)))
        found[rows] = scores[: len(rows)]
    if not np.isfinite(found).all():
        raise ValueError("params must give finite scores; some are not")
    return found


@functools.partial(jax.jit, static_argnums=0)
def _of_words(apply_fn: Any, params: Params, inputs: PyTree, words_K: Array) -> Array:
    return jax.nn.log_softmax(apply_fn(params, inputs)[:, 0].astype(jnp.float32), axis=-1)[:, words_K]
