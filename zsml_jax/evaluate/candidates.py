"""Candidates of any length for the blank of a fact, scored by a masked or causal model or an encoder-decoder."""

from collections.abc import Sequence

import numpy as np

from zsml_jax.evaluate.cloze import Reader, blank_logits, cloze_batches, score_masked
from zsml_jax.evaluate.continuations import Continuation, score_continuations
from zsml_jax.evaluate.facts import Fact
from zsml_jax.models.batches import round_length
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.typing import Params

#: By index of a fact, for each candidate its log-probability and the number of its tokens.
Scores = dict[int, list[tuple[float, int]]]


def score_candidates(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    choices: Sequence[Sequence[str]],
    *,
    params: Params,
    batch_tokens: int,
) -> Scores:
    """Scores candidates of any length in the blanks of facts.

    Args:
      pretrained: the model.
      reader: of the model.
      facts: the facts.
      choices: the candidates of each fact.
      params: the model's parameters.
      batch_tokens: about so many tokens make a batch.

    Returns:
      The scores of the facts that the model can read with the longest of their candidates.

    Raises:
      ValueError: if a score is not finite.
    """
    run = _masked_scores if reader.kind == "masked" else _continuation_scores
    return run(pretrained, reader, facts, choices, params, batch_tokens)


def _continuation_scores(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    choices: Sequence[Sequence[str]],
    params: Params,
    batch_tokens: int,
) -> Scores:
    rows: list[Continuation] = []
    spans: dict[int, tuple[int, int]] = {}
    is_causal = reader.kind == "causal"
    for i, (fact, words) in enumerate(zip(facts, choices, strict=True)):
        objects = [reader.object_ids(word) for word in words]
        after = reader.after_ids(fact) if is_causal else []
        cloze = reader.cloze(fact, max(map(len, objects)) + len(after))
        if cloze is not None:
            spans[i] = len(rows), len(rows) + len(words)
            # The decoder of an encoder-decoder writes the sentinel first, which is no part of the object.
            start = [] if is_causal else [reader.blank_id]
            rows += [Continuation(cloze.tokens, [*start, *ids, *after]) for ids in objects]
    scored = score_continuations(pretrained, rows, params=params, batch_tokens=batch_tokens)
    skip = 0 if is_causal else 1
    totals = [(float(row.log_probs[skip:].sum()), len(row.log_probs) - skip) for row in scored]
    return {i: totals[start:end] for i, (start, end) in spans.items()}


def _masked_scores(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    choices: Sequence[Sequence[str]],
    params: Params,
    batch_tokens: int,
) -> Scores:
    lengths = [[len(reader.object_ids(word)) for word in words] for words in choices]
    fits = [reader.cloze(fact, max(own)) is not None for fact, own in zip(facts, lengths, strict=True)]
    scores = {i: [(0.0, length) for length in own] for i, own in enumerate(lengths) if fits[i]}
    for width in sorted({length for i in scores for length in lengths[i]}):
        which = {i: [k for k, length in enumerate(lengths[i]) if length == width] for i in scores}
        which = {i: ks for i, ks in which.items() if ks}
        most = round_length(max(map(len, which.values())))
        clozes = {i: cloze for i in which if (cloze := reader.cloze(facts[i], width)) is not None}
        apply_fn = blank_logits(pretrained.module, "masked", width)
        for rows, inputs in cloze_batches(clozes, reader.max_length, reader.tokenizer.pad_id, batch_tokens):
            words = np.zeros((len(inputs[0]), most, width), np.int32)
            for row, i in enumerate(rows):
                words[row, : len(which[i])] = [reader.object_ids(choices[i][k]) for k in which[i]]
            joint = np.asarray(score_masked(apply_fn, params, inputs, words))
            if not np.isfinite(joint[: len(rows)]).all():
                raise ValueError("params must give finite scores; some are not")
            for row, i in enumerate(rows):
                for column, k in enumerate(which[i]):
                    scores[i][k] = float(joint[row, column]), width
    return scores
