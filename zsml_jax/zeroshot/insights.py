"""Insights: pairs of texts whose difference is a direction to remove or to boost.

Start with :func:`load`, which reads the lists that come with the package, written by hand for each data set::

    insights = load("sentiment_domains")
    head = class_head(encoder, insights.class_prompts)
    head = roboshot.edit_head(head, **insights.vectors(encoder))

:func:`generate` asks any text-generation callable instead. The texts that ask it, in ``insights_data/queries.json``,
follow appendix tables 7 and 8 of Adila et al. (ICLR 2024) in our own words.
"""

import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from jaxtyping import Float

from zsml_jax.typing import Encoder
from zsml_jax.zeroshot.insight_parsing import parse_pairs

#: Two texts that differ in one respect.
Pair = tuple[str, str]

_FOLDER = Path(__file__).parent / "insights_data"
_QUERIES = "queries"


class InsightVectors(TypedDict):
    """The keyword arguments of RoboShot: vectors ``(m, d)`` of each kind, None where there is no insight."""

    harmful: np.ndarray | None
    helpful: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Insights:
    """What is known about a task, in words.

    Attributes:
      harmful: pairs that differ in a respect no prediction should depend on.
      helpful: pairs that differ in what makes the classes; may be empty.
      task: what is to be predicted, as a phrase.
      classes: the names of the classes; may be empty.
      class_prompts: the prompts of each class, for :func:`zsml_jax.zeroshot.class_head`.
      group_prompts: the prompts of each class, one for each of its groups: a baseline that names the groups.
    """

    harmful: tuple[Pair, ...]
    helpful: tuple[Pair, ...]
    task: str = ""
    classes: tuple[str, ...] = ()
    class_prompts: tuple[tuple[str, ...], ...] = ()
    group_prompts: tuple[tuple[str, ...], ...] = ()

    def vectors(self, encoder: Encoder) -> "InsightVectors":
        """Returns the keyword arguments ``harmful`` and ``helpful`` of RoboShot; None for an empty kind.

        Args:
          encoder: maps a list of texts to their embeddings; the one that embeds the examples.
        """
        return InsightVectors(
            harmful=vectors(encoder, self.harmful) if self.harmful else None,
            helpful=vectors(encoder, self.helpful) if self.helpful else None,
        )


def vectors(encoder: Encoder, pairs: Sequence[Pair]) -> Float[np.ndarray, "m d"]:
    """Returns the difference of the embeddings of each pair, first minus second.

    The lengths are left as they are: RoboShot depends on the span only.

    Args:
      encoder: maps a list of texts to their embeddings ``(n, d)``; it is called once, with every text once.
      pairs: pairs of texts.

    Returns:
      One insight vector per pair.

    Raises:
      ValueError: if there is no pair, the encoder returns another shape or numbers that are not finite, or it embeds
        both texts of a pair alike.
    """
    if not pairs:
        raise ValueError("pairs must hold at least one pair of texts, got none")
    texts = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    embeddings = np.asarray(encoder(texts))
    if embeddings.ndim != 2 or len(embeddings) != len(texts):
        raise ValueError(f"encoder must return shape ({len(texts)}, d) for {len(texts)} texts, got {embeddings.shape}")
    embeddings = embeddings.astype(np.promote_types(embeddings.dtype, np.float32))
    if not np.isfinite(embeddings).all():
        raise ValueError("encoder must return finite embeddings, got NaN or infinity")
    row = {text: i for i, text in enumerate(texts)}
    differences = np.stack([embeddings[row[first]] - embeddings[row[second]] for first, second in pairs])
    if (same := ~differences.any(axis=1)).any():
        raise ValueError(f"pairs must differ in their embeddings; {pairs[int(same.argmax())]} does not")
    return differences


def names() -> tuple[str, ...]:
    """Returns the names of the lists that come with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json") if path.stem != _QUERIES))


def load(name: str | os.PathLike[str]) -> Insights:
    """Returns the insights of a data set, or of a JSON file that :func:`save` wrote.

    Args:
      name: one of :func:`names`, or the path of a file that ends in ``.json``.

    Returns:
      The insights, with class prompts where the file has them.

    Raises:
      ValueError: if there is no such list, or the file does not hold pairs of texts.
    """
    path = Path(name)
    if path.suffix != ".json":
        path = _FOLDER / f"{name}.json"
        if str(name) not in names():
            raise ValueError(f"name must be one of {', '.join(names())} or a .json file, got {str(name)!r}")
    content = _read_json(path)
    pairs = {kind: content.get(kind, []) for kind in ("harmful", "helpful")}
    for kind, rows in pairs.items():
        if not all(len(row) == 2 and all(isinstance(text, str) and text for text in row) for row in rows):
            raise ValueError(f"{kind} in {path} must be a list of pairs of texts")
    if not any(pairs.values()):
        raise ValueError(f"{path} must hold harmful or helpful pairs, and holds neither")
    nested = lambda key: tuple(tuple(row) for row in content.get(key, []))
    return Insights(
        harmful=nested("harmful"),
        helpful=nested("helpful"),
        task=content.get("task", ""),
        classes=tuple(content.get("classes", [])),
        class_prompts=nested("class_prompts"),
        group_prompts=nested("group_prompts"),
    )


def save(insights: Insights, path: str | os.PathLike[str]) -> None:
    """Writes insights to a JSON file that :func:`load` reads, replacing it in one step.

    Args:
      insights: what to write.
      path: the file, ending in ``.json``.

    Raises:
      ValueError: if the path does not end in ``.json``.
    """
    if Path(path).suffix != ".json":
        raise ValueError(f"path must end in .json, got {str(path)!r}")
    _write_json(dataclasses.asdict(insights), Path(path))


def generate(
    generate_fn: Callable[[str], str],
    classes: Sequence[str],
    *,
    task: str = "",
    family: Literal["chat", "completion"] = "chat",
    template: str = "{}",
    cache: str | os.PathLike[str] | None = None,
) -> Insights:
    """Asks a language model for insights.

    A chat model is asked once for harmful and once for helpful differences, and its lines are parsed into pairs. A
    plain language model completes a few stems for each class, and the completions of one stem pair up by class.

    Args:
      generate_fn: maps a prompt to the text that the model answers or continues with.
      classes: the names of the classes, at least two.
      task: what is to be predicted, as a phrase ("telling landbirds from waterbirds in photographs").
      family: how the model is asked.
      template: what each phrase is put into, as "a photo of a bird with {}".
      cache: a JSON file of answers by prompt. Prompts found there are not asked again, and each new answer is written
        at once, so that an interrupted run goes on where it stopped.

    Returns:
      The insights, with the class names as class prompts.

    Raises:
      ValueError: if there are fewer than two classes, the template has no ``{}``, the family is unknown, the cache file
        holds something else, or an answer lists no pair.
    """
    if len(set(classes)) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes must hold at least two different names, got {list(classes)}")
    if template.count("{}") != 1:
        raise ValueError(f"template must contain {{}} once, got {template!r}")
    queries = json.loads((_FOLDER / f"{_QUERIES}.json").read_text(encoding="utf-8"))
    if family not in queries:
        raise ValueError(f"family must be one of {', '.join(queries)}, got {family!r}")
    ask = _cached(generate_fn, None if cache is None else Path(cache))
    find = _chat_pairs if family == "chat" else _completion_pairs
    pairs = {kind: find(ask, queries[family], kind, classes, task) for kind in ("harmful", "helpful")}
    filled = {
        kind: tuple((template.replace("{}", first), template.replace("{}", second)) for first, second in found)
        for kind, found in pairs.items()
    }
    prompts = tuple((name,) for name in classes)
    return Insights(**filled, task=task, classes=tuple(classes), class_prompts=prompts)


def _chat_pairs(
    ask: Callable[[str], str], queries: dict[str, Any], kind: str, classes: Sequence[str], task: str
) -> list[Pair]:
    found: list[Pair] = []
    for query in queries[kind]:
        question = query.format(task=task or "classification", classes=", ".join(classes))
        answer = ask(f"{question}\n{queries['format']}")
        pairs = parse_pairs(answer)
        if not pairs:
            raise ValueError(f"generate_fn must list pairs of differences, one a line; it answered {answer[:200]!r}")
        found += pairs
    return list(dict.fromkeys(found))


def _completion_pairs(
    ask: Callable[[str], str], queries: dict[str, Any], kind: str, classes: Sequence[str], task: str
) -> list[Pair]:
    found: list[Pair] = []
    for stem in queries[kind]:
        texts = []
        for name in classes:
            prompt = stem.replace("{class}", name)
            continuation = ask(prompt).removeprefix(prompt).strip()
            first_line = continuation.splitlines()[0] if continuation else ""
            if first_line:
                texts.append(f"{prompt} {first_line.partition('. ')[0].rstrip('. ')}")
        found += itertools.combinations(texts, 2)
    if not found:
        raise ValueError(f"generate_fn must complete a stem for at least two of {list(classes)}; it returned no text")
    return list(dict.fromkeys(found))


def _cached(generate_fn: Callable[[str], str], cache: Path | None) -> Callable[[str], str]:
    answers: dict[str, Any] = _read_json(cache) if cache is not None and cache.exists() else {}
    if not all(isinstance(answer, str) for answer in answers.values()):
        raise ValueError(f"{cache} must hold answers by prompt")

    def ask(prompt: str) -> str:
        if prompt not in answers:
            answers[prompt] = generate_fn(prompt)
            if cache is not None:
                _write_json(answers, cache)
        return answers[prompt]

    return ask


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, holds a {type(content).__name__}")
    return content


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=path.name, suffix=".tmp", encoding="utf-8", delete=False
    ) as file:
        try:
            json.dump(content, file, ensure_ascii=False, indent=1)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
