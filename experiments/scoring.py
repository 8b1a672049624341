"""Held-out passages scored by a language model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.corpus import Corpus
from zsml_jax import evaluate
from zsml_jax.data.documents import passages
from zsml_jax.models import Pretrained
from zsml_jax.report import RunFolder, progress
from zsml_jax.typing import Array, Params

#: Documents that are scored between two results on the disk.
_GROUP = 4
#: Characters of each held-out passage that are scored while the model learns.
_GLIMPSE = 700


class Scores(NamedTuple):
    """What a model needs for each held-out passage, ``(n,)`` each."""

    nats: np.ndarray
    num_tokens: np.ndarray
    num_bytes: np.ndarray


class Scorer:
    """Scores passages with one compiled program, whatever the parameters are.

    Args:
      pretrained: the model; its parameters are given with each call.
      start_token: stands before each passage.
      context: tokens that the model reads at a time.
      stride: tokens between two windows.
      batch_size: windows in a batch.

    Attributes:
      apply_fn: the model as a function from parameters and tokens to logits.

    Raises:
      ValueError: if the model is no causal language model with a tokenizer.
    """

    def __init__(self, pretrained: Pretrained, *, start_token: int, context: int, stride: int, batch_size: int = 8):
        if pretrained.tokenizer is None or not hasattr(pretrained.module, "init_cache"):
            raise ValueError("the model must be a causal language model with a tokenizer")
        module: Any = pretrained.module
        self.apply_fn: Callable[[Params, Array], Array] = lambda params, tokens: (
            module.apply({"params": params}, tokens).logits
        )
        self._pretrained = pretrained
        self._options: dict[str, Any] = {"start_token": start_token, "context": context, "stride": stride}
        self._options["batch_size"] = batch_size

    def nats(self, params: Params, texts: list[str]) -> list[tuple[float, int]]:
        """Returns the negative log-likelihood of each text, and its number of tokens."""
        scores = evaluate.perplexity(self._pretrained, texts, params=params, **self._options)
        return list(zip(scores.nats.tolist(), scores.num_tokens.tolist(), strict=True))

    def glimpse(self, corpus: Corpus) -> Callable[[Params], Mapping[str, float]]:
        """Returns the function from parameters to the bits per byte of the beginnings of the held-out passages."""
        texts = [passages(passage, _GLIMPSE)[0] for passage in corpus.held_out]
        num_bytes = sum(len(text.encode()) for text in texts)

        def bits(params: Params) -> Mapping[str, float]:
            nats = sum(nats for nats, _ in self.nats(params, texts))
            return {"bits_per_byte": nats / np.log(2) / num_bytes}

        return bits

    def held_out(self, params: Params, corpus: Corpus, folder: RunFolder) -> Scores:
        """Scores all held-out passages; those that an interrupted run has scored are not scored again."""
        found: list[tuple[float, int]] = []
        starts = range(0, len(corpus.held_out), _GROUP)
        for start in progress(starts, "scoring the held-out passages"):
            group = corpus.held_out[start : start + _GROUP]
            key = f"held out {start} to {start + len(group) - 1}"
            found += folder.cached(key, lambda group=group: self.nats(params, group))
        nats, num_tokens = zip(*found, strict=True)
        return Scores(np.array(nats), np.array(num_tokens), np.array(corpus.held_out_bytes))
