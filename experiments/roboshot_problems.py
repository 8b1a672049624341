"""Where RoboShot's experiment gets its data: a text data set that is embedded here, or a folder of embeddings."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.text_classification import load_splits
from zsml_jax import models
from zsml_jax.data import cached_embeddings
from zsml_jax.typing import Encoder
from zsml_jax.zeroshot import insights

FILES = """\
  embeddings.npy       (n, d) floats, the test split by {model}
  labels.npy           (n,) class indices
  groups.npy           (n,) group indices{groups}
  classes.json         the list of class names: {classes}
  texts.json           the list of prompts and insights; it is written for you where it is missing
  text_embeddings.npy  (t, d) floats, the texts of texts.json by the same model
and perhaps train_embeddings.npy, (m, d) floats without labels, for label-free adaptation."""


class Grouping(NamedTuple):
    """One way to divide the examples into groups.

    Attributes:
      names: the groups.
      groups: the group of each example, ``(n,)``.
      train_sizes: examples of each group in the training set, ``(g,)``; None where they are not known.
    """

    names: tuple[str, ...]
    groups: np.ndarray
    train_sizes: np.ndarray | None


class Labelled(NamedTuple):
    """Embeddings with class indices."""

    x: np.ndarray
    labels: np.ndarray


class Problem(NamedTuple):
    """All that the experiment needs.

    Attributes:
      test: what is classified and measured.
      groupings: by title; the first is that of published figures.
      known: prompts and insights.
      encoder: embeds them.
      unlabelled: embeddings for label-free adaptation, or None.
      validation: labelled examples to choose its hyperparameters with, or None.
    """

    test: Labelled
    groupings: dict[str, Grouping]
    known: insights.Insights
    encoder: Encoder
    unlabelled: np.ndarray | None
    validation: Labelled | None


def from_text(
    dataset: str,
    known: insights.Insights,
    model: str,
    *,
    limit: int = 0,
    n_validation: int = 100,
) -> Problem:
    """Embeds a text data set; its groups, and its groups by class, are the groupings."""
    encoder = models.text_encoder(model)
    train, validation, test = load_splits(encoder, dataset, "train", "validation", "test", limit=limit)
    names, classes = test.dataset.group_names, test.dataset.class_names
    groups, train_groups = test.dataset.groups, train.dataset.groups
    if groups is None or train_groups is None:
        raise ValueError(f"dataset must be one with groups, and {dataset!r} has none")
    by_class = lambda groups, labels: groups * len(classes) + labels
    sizes = lambda groups, n: np.bincount(groups, minlength=n)
    crossed = tuple(f"{group}, {name}" for group in names for name in classes)
    return Problem(
        test=Labelled(test.x, test.labels),
        groupings={
            "domains": Grouping(names, groups, sizes(train_groups, len(names))),
            "domains x classes": Grouping(
                crossed, by_class(groups, test.labels), sizes(by_class(train_groups, train.labels), len(crossed))
            ),
        },
        known=known,
        encoder=encoder,
        unlabelled=train.x,
        validation=Labelled(validation.x[:n_validation], validation.labels[:n_validation]),
    )


def from_folder(
    folder: Path | None,
    dataset: str,
    known: insights.Insights,
    model: str,
    *,
    group_names: Sequence[str] = (),
    train_group_sizes: Sequence[int] = (),
) -> Problem:
    """Reads embeddings that some encoder made elsewhere.

    Raises:
      SystemExit: if the folder is not given, or a file is missing; the message says what the folder must hold.
      ValueError: if the files disagree.
    """
    files = FILES.format(
        model=model,
        groups=f" of: {'; '.join(group_names)}" if group_names else "",
        classes=", ".join(known.classes),
    )
    if folder is None:
        raise SystemExit(f"{dataset} needs --embeddings DIR, a folder with\n{files}")
    required = ("embeddings.npy", "labels.npy", "groups.npy", "classes.json", "text_embeddings.npy")
    if folder.is_dir() and not (folder / "texts.json").exists():
        texts = json.dumps(texts_of(known), indent=1, ensure_ascii=False)
        (folder / "texts.json").write_text(texts, encoding="utf-8")
    if missing := [name for name in required if not (folder / name).is_file()]:
        raise SystemExit(f"{folder} lacks {', '.join(missing)}. It must hold\n{files}")
    content = cached_embeddings.load(folder)
    assert content.groups is not None
    if content.class_names != known.classes:
        raise ValueError(f"classes.json must list {list(known.classes)} in this order, got {list(content.class_names)}")
    n_groups = len(group_names) or int(content.groups.max()) + 1
    if content.groups.min() < 0 or content.groups.max() >= n_groups:
        raise ValueError(f"groups.npy must hold 0..{n_groups - 1}, got {content.groups.min()}..{content.groups.max()}")
    sizes = np.array(train_group_sizes) if train_group_sizes else None
    unlabelled = folder / "train_embeddings.npy"
    return Problem(
        test=Labelled(content.embeddings, content.labels),
        groupings={
            "groups": Grouping(
                tuple(group_names) or tuple(f"group {g}" for g in range(n_groups)), content.groups, sizes
            ),
            "classes": Grouping(content.class_names, content.labels, None),
        },
        known=known,
        encoder=recorded(folder),
        unlabelled=np.load(unlabelled) if unlabelled.is_file() else None,
        validation=None,
    )


def texts_of(known: insights.Insights) -> list[str]:
    """Returns every prompt and insight, each once."""
    pairs, prompts = (known.harmful, known.helpful), (known.class_prompts, known.group_prompts)
    return list(dict.fromkeys(text for kind in (*pairs, *prompts) for row in kind for text in row))


def recorded(folder: Path) -> Encoder:
    """Returns an encoder that looks texts up in ``texts.json`` and ``text_embeddings.npy``."""
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    embeddings = np.load(folder / "text_embeddings.npy")
    if len(texts) != len(embeddings):
        raise ValueError(f"{folder}: texts.json holds {len(texts)} texts, text_embeddings.npy {len(embeddings)} rows")
    row = {text: i for i, text in enumerate(texts)}

    def encode(wanted: list[str]) -> np.ndarray:
        if unknown := [text for text in wanted if text not in row]:
            raise ValueError(f"{folder}/texts.json lacks {len(unknown)} texts, such as {unknown[0]!r}")
        return embeddings[[row[text] for text in wanted]]

    return encode
