"""Probes of what a language model knows: facts as cloze sentences, the right objects ranked among others.

Petroni et al., "Language Models as Knowledge Bases?", 2019 (LAMA); Namburi et al., "The Cost of Compression", 2023.
For masked and causal language models and encoder-decoders of T5's kind::

    facts = facts.balanced(facts.read_qa_wikidata(path), 2000)
    found = lama.probe(pretrained, facts)
    found.precision_at(1), found.mean_reciprocal_rank(average="macro"), found.interval(1, key=key)

Modes:

``"lama"``
  The original protocol: a word of a vocabulary, which one may make common to several models
  (:func:`common_vocabulary`), is one token; facts without such an answer are left out, all others ranked.
``"paper"``
  That of The Cost of Compression: the ten best tokens of the whole vocabulary are decoded, and compared as strings in
  lower case. An answer of several tokens is always wrong, and of facts with the same sentence the first counts.
``"joint"`` and ``"normalised"``
  Answers of any length are ranked among the objects of their relation by their joint log-probability, or by its mean
  over tokens. A masked model sees as many masks as the candidate has tokens and scores them at once; a causal one also
  scores what stands after the blank.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from zsml_jax.evaluate.candidates import score_candidates
from zsml_jax.evaluate.cloze import Reader, blank_logits, cloze_batches, object_token, rank_words
from zsml_jax.evaluate.fact_ranks import FactRanks
from zsml_jax.evaluate.facts import BLANK, Fact
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.tokenizer import Tokenizer
from zsml_jax.typing import Params

Mode = Literal["lama", "paper", "joint", "normalised"]
#: How deep the paper's mode looks.
TOP = 10


def probe(
    pretrained: Pretrained,
    facts: Sequence[Fact],
    *,
    mode: Mode = "lama",
    params: Params | None = None,
    vocabulary: Iterable[str] | None = None,
    num_candidates: int | None = None,
    seed: int = 0,
    batch_tokens: int = 4096,
) -> FactRanks:
    """Ranks the right objects of facts.

    Parameters are arguments of the compiled programs, so that probing a compressed model with the same facts compiles
    nothing.

    Args:
      pretrained: the model, with its tokenizer.
      facts: the facts; :mod:`zsml_jax.evaluate.facts` reads them.
      mode: one of the protocols above.
      params: parameters to use in place of the model's own.
      vocabulary: for ``"lama"``, the words among which objects are ranked; all tokens of the model if None.
      num_candidates: for ``"joint"`` and ``"normalised"``, how many objects of the relation are ranked for a fact, one
        right answer among them; all of the relation if None, or if it has no more.
      seed: another seed, other candidates.
      batch_tokens: about so many tokens make a batch.

    Returns:
      The ranks. Of several right answers the best one counts. Facts that are too long for the model are left out.

    Raises:
      ValueError: if an option is not possible, a fact has no blank or no answer, no fact can be asked, or a score is
        not finite.
    """
    if mode not in ("lama", "paper", "joint", "normalised"):
        raise ValueError(f"mode must be 'lama', 'paper', 'joint' or 'normalised', got {mode!r}")
    if batch_tokens < 1 or (num_candidates is not None and num_candidates < 2):
        raise ValueError(
            f"batch_tokens must be at least 1 and num_candidates at least 2, got {batch_tokens} and {num_candidates}"
        )
    if vocabulary is not None and mode != "lama":
        raise ValueError(f"vocabulary must be None with mode {mode!r}, which does not restrict it")
    if num_candidates is not None and mode in ("lama", "paper"):
        raise ValueError(f"num_candidates must be None with mode {mode!r}, which ranks tokens")
    if bad := [i for i, fact in enumerate(facts) if BLANK not in fact.sentence or not fact.answers]:
        raise ValueError(f"facts must have a blank {BLANK} and an answer; fact {bad[0]} is {facts[bad[0]]}")
    reader = Reader(pretrained)
    params = pretrained.params if params is None else params
    if mode == "lama":
        ranked = _rank_tokens(pretrained, reader, facts, params, vocabulary, batch_tokens)
    elif mode == "paper":
        ranked = _match_strings(pretrained, reader, facts, params, batch_tokens)
    else:
        choices = _candidates(facts, num_candidates, seed)
        ranked = _rank_candidates(
            pretrained, reader, facts, choices, params, batch_tokens, is_mean=mode == "normalised"
        )
    asked = sorted(ranked)
    if not asked:
        raise ValueError(f"facts must have one that can be asked in mode {mode!r}; none of {len(facts)} can")
    names = sorted({facts[i].relation for i in asked})
    return FactRanks(
        ranks=np.array([ranked[i][0] for i in asked]),
        relations=np.array([names.index(facts[i].relation) for i in asked]),
        relation_names=tuple(names),
        asked=np.array(asked),
        predictions=tuple(ranked[i][1] for i in asked),
    )


def common_vocabulary(tokenizers: Sequence[Tokenizer], words: Iterable[str]) -> list[str]:
    """Returns the words that are one token for every tokenizer, in order and each once.

    Args:
      tokenizers: those of the models to be compared.
      words: the words to choose from, such as all objects of some facts.
    """
    tokenizers = list(tokenizers)
    return [word for word in dict.fromkeys(words) if all(object_token(each, word) is not None for each in tokenizers)]


#: By index of a fact, the rank of its answer and what was ranked first.
_Ranked = dict[int, tuple[int, str]]


def _rank_tokens(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    params: Params,
    vocabulary: Iterable[str] | None,
    batch_tokens: int,
) -> _Ranked:
    allowed = np.ones(pretrained.config.vocab_size, bool)
    if vocabulary is not None:
        ids = [token for word in vocabulary if (token := object_token(reader.tokenizer, word)) is not None]
        if len(set(ids)) < 2:
            raise ValueError("vocabulary must have at least two words that are one token each")
        allowed[:] = False
        allowed[ids] = True
    answers: dict[int, list[int]] = {}
    for i, fact in enumerate(facts):
        tokens = [object_token(reader.tokenizer, word) for word in fact.answers]
        if single := [token for token in tokens if token is not None and allowed[token]]:
            answers[i] = single
    found: _Ranked = {}
    for rows, ranks, best in _in_blanks(pretrained, reader, facts, params, allowed, answers, 1, batch_tokens):
        for i, own, top in zip(rows, ranks, best, strict=True):
            found[i] = min(rank for rank in own if rank), reader.tokenizer.decode(top).strip()
    return found


def _match_strings(
    pretrained: Pretrained, reader: Reader, facts: Sequence[Fact], params: Params, batch_tokens: int
) -> _Ranked:
    first = {fact.sentence: i for i, fact in reversed(list(enumerate(facts)))}
    chosen = {i: [0] for i in sorted(first.values())}
    allowed = np.ones(pretrained.config.vocab_size, bool)
    top = min(TOP, len(allowed))
    found: _Ranked = {}
    for rows, _, best in _in_blanks(pretrained, reader, facts, params, allowed, chosen, top, batch_tokens):
        for i, ids in zip(rows, best, strict=True):
            words = [reader.tokenizer.decode([token]).strip().lower() for token in ids]
            right = {answer.lower() for answer in facts[i].answers}
            found[i] = next((rank for rank, word in enumerate(words, 1) if word in right), 0), words[0]
    return found


def _in_blanks(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    params: Params,
    allowed: np.ndarray,
    answers: dict[int, list[int]],
    top: int,
    batch_tokens: int,
) -> Iterable[tuple[list[int], list[list[int]], list[list[int]]]]:
    """Yields by batch the facts, the ranks of their answers and the best tokens."""
    clozes = {i: cloze for i in answers if (cloze := reader.cloze(facts[i])) is not None}
    width = max((len(ids) for ids in answers.values()), default=1)
    apply_fn = blank_logits(pretrained.module, reader.kind)
    for rows, inputs in cloze_batches(clozes, reader.max_length, reader.tokenizer.pad_id, batch_tokens):
        wanted = np.full((len(inputs[0]), width), -1, np.int32)
        for row, i in zip(wanted, rows, strict=False):
            row[: len(answers[i])] = answers[i]
        ranks, best, is_broken = map(np.asarray, rank_words(apply_fn, top, params, inputs, allowed, wanted))
        if is_broken[: len(rows)].any():
            raise ValueError("params must give finite scores; some are NaN")
        yield rows, ranks[: len(rows)].tolist(), best[: len(rows)].tolist()


def _candidates(facts: Sequence[Fact], count: int | None, seed: int) -> list[list[str]]:
    """For each fact what is ranked: its answers, or one of them, among the objects of its relation."""
    objects: dict[str, dict[str, None]] = {}
    for fact in facts:
        objects.setdefault(fact.relation, {}).update(dict.fromkeys(fact.answers))
    rng = np.random.default_rng(seed)
    found = []
    for fact in facts:
        others = [word for word in objects[fact.relation] if word not in fact.answers]
        if count is None or len(others) < count:
            found.append([*fact.answers, *others][: None if count is None else count])
        else:
            found.append([fact.answers[0], *(others[k] for k in sorted(rng.permutation(len(others))[: count - 1]))])
    return found


def _rank_candidates(
    pretrained: Pretrained,
    reader: Reader,
    facts: Sequence[Fact],
    choices: Sequence[Sequence[str]],
    params: Params,
    batch_tokens: int,
    *,
    is_mean: bool,
) -> _Ranked:
    scored = score_candidates(pretrained, reader, facts, choices, params=params, batch_tokens=batch_tokens)
    found: _Ranked = {}
    for i, totals in scored.items():
        scores = np.array([total / length if is_mean else total for total, length in totals])
        order = np.argsort(-scores, kind="stable")
        ranked = [choices[i][k] for k in order]
        # Other right answers are no competitors, as the best of them counts.
        found[i] = next(rank for rank, word in enumerate(ranked, 1) if word in facts[i].answers), ranked[0]
    return found
