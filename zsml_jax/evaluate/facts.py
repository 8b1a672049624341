"""Facts as cloze sentences: readers for LAMA's JSON lines and for the prompts of BIG-bench's ``qa_wikidata``."""

import collections
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

#: What stands where the object is missing.
BLANK = "[MASK]"


class Fact(NamedTuple):
    """A sentence with a blank.

    >>> fact = Fact("The capital of France is [MASK].", ("Paris",), "capital")
    >>> fact.before, fact.after
    ('The capital of France is ', '.')

    Attributes:
      sentence: the sentence, with ``[MASK]`` where the object is missing; the first counts where there are several.
      answers: the objects that are right, at least one.
      relation: the name of the relation.
      subject: the subject, where it is known.
    """

    sentence: str
    answers: tuple[str, ...]
    relation: str
    subject: str = ""

    @property
    def before(self) -> str:
        """What stands before the blank."""
        return self.sentence.partition(BLANK)[0]

    @property
    def after(self) -> str:
        """What stands after the blank."""
        return self.sentence.partition(BLANK)[2]


def read_lama(path: str | os.PathLike, *, templates: Mapping[str, str] | None = None) -> list[Fact]:
    """Reads facts as LAMA publishes them (Petroni et al., 2019), one JSON object a line.

    Google-RE, ConceptNet and SQuAD have ``masked_sentences``, of which the first is taken; T-REx has templates of its
    relations, or the sentences of its evidences. Lines without a sentence with a blank are left out.

    Args:
      path: a file (also .gz), or a folder whose ``*.jsonl`` and ``*.jsonl.gz`` are meant.
      templates: by relation a sentence with ``[X]`` for the subject and ``[Y]`` for the object, as
        :func:`read_templates` gives it; it goes before the sentences of the file.

    Raises:
      ValueError: if there is no file, or a line is no object with ``obj_label``.
    """
    path = Path(path)
    files = sorted([*path.glob("*.jsonl"), *path.glob("*.jsonl.gz")]) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ValueError(f"path must be a file or a folder of JSON lines, got {path}")
    found = []
    for file in files:
        for where, line in _lines(file):
            if "obj_label" not in line:
                raise ValueError(f"{where} must have 'obj_label', has {sorted(line)}")
            relation = str(line.get("predicate_id") or line.get("pred") or file.name.partition(".")[0])
            subject = str(line.get("sub_label") or line.get("sub") or "")
            template = (templates or {}).get(relation)
            evidences = [each.get("masked_sentence", "") for each in line.get("evidences", [])]
            sentences = list(line.get("masked_sentences") or evidences)
            if template is not None:
                sentences.insert(0, template.replace("[X]", subject).replace("[Y]", BLANK))
            if sentences and BLANK in sentences[0]:
                found.append(Fact(sentences[0], (str(line["obj_label"]),), relation, subject))
    return found


def read_templates(path: str | os.PathLike) -> dict[str, str]:
    """Reads LAMA's ``relations.jsonl``: by relation its template.

    Raises:
      ValueError: if a line has no ``relation`` or no ``template``.
    """
    found = {}
    for where, line in _lines(Path(path)):
        if not {"relation", "template"} <= line.keys():
            raise ValueError(f"{where} must have 'relation' and 'template', has {sorted(line)}")
        found[str(line["relation"])] = str(line["template"])
    return found


def read_qa_wikidata(path: str | os.PathLike) -> list[Fact]:
    """Reads BIG-bench's ``qa_wikidata`` as JSON lines with ``prompt``, ``answers``, ``relation`` and ``subject``.

    The prompt is the beginning of the sentence; the blank and a full stop are put after it. A header line is left out.

    Raises:
      ValueError: if a line lacks a field.
    """
    found = []
    for where, line in _lines(Path(path)):
        if line.get("header"):
            continue
        if not {"prompt", "answers", "relation"} <= line.keys() or not line["answers"]:
            raise ValueError(f"{where} must have 'prompt', 'answers' and 'relation', has {sorted(line)}")
        beginning = line["prompt"].removesuffix(BLANK).rstrip()  # some prompts end in a blank already
        answers = tuple(map(str, line["answers"]))
        found.append(Fact(f"{beginning} {BLANK}.", answers, str(line["relation"]), str(line.get("subject", ""))))
    return found


def balanced(facts: Sequence[Fact], count: int, *, seed: int = 0) -> list[Fact]:
    """Draws facts so that no relation has many more than another.

    Each relation gives the same number of facts, or all that it has; they come back in the order of ``facts``.

    >>> facts = [Fact(f"{i} [MASK]", ("x",), "often" if i < 8 else "rare") for i in range(10)]
    >>> [fact.relation for fact in balanced(facts, 5)]
    ['often', 'often', 'often', 'rare', 'rare']

    Args:
      facts: the facts.
      count: how many to draw.
      seed: another seed, other facts.

    Raises:
      ValueError: if there are not so many facts, or ``count`` is not positive.
    """
    if not 1 <= count <= len(facts):
        raise ValueError(f"count must lie in 1 ... {len(facts)}, the facts that there are, got {count}")
    rng = np.random.default_rng(seed)
    by_relation: dict[str, collections.deque[int]] = {}
    for i in rng.permutation(len(facts)).tolist():
        by_relation.setdefault(facts[i].relation, collections.deque()).append(i)
    drawn: list[int] = []
    # In turns, relations in the order of their names, so that the draw depends on the seed and on nothing else.
    while len(drawn) < count:
        for relation in sorted(by_relation):
            if by_relation[relation] and len(drawn) < count:
                drawn.append(by_relation[relation].popleft())
    return [facts[i] for i in sorted(drawn)]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file of JSON lines, and where each stands."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            where = f"{path}, line {number}"
            try:
                line = json.loads(text)
            except ValueError as error:
                raise ValueError(f"{where} must be JSON: {text[:80]!r}") from error
            if not isinstance(line, dict):
                raise ValueError(f"{where} must be an object, got {text[:80]!r}")
            yield where, line
