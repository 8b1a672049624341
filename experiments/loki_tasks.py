"""Where Loki's experiment gets its classes, its tree and its scores."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from experiments.text_classification import described_head, load_splits
from zsml_jax import data, models
from zsml_jax.data import hierarchy
from zsml_jax.zeroshot.metric_space import TreeMetric

Edge = tuple[Hashable, Hashable]


class Task(NamedTuple):
    """Labelled examples whose classes lie in a tree.

    Attributes:
      about: a sentence on the data and the scores.
      classes: the ids of the classes.
      observable: indices of the classes that may be observed.
      labels: the class index of each test example, ``(n,)``.
      tree: the metric over all nodes of the tree.
      leaves: the same metric over the classes only, in their order.
      reachable: the metric over the part of the tree that lies above observable classes.
      scores: from the indices of the observed classes, in rising order, to their log-probabilities, ``(n, m)``.
    """

    about: str
    classes: tuple[Hashable, ...]
    observable: np.ndarray
    labels: np.ndarray
    tree: TreeMetric
    leaves: TreeMetric
    reachable: TreeMetric
    scores: Callable[[np.ndarray], np.ndarray]


def trec(encoder_name: str, scores: str, *, template: str, logit_scale: float, limit: int = 0) -> Task:
    """TREC's 50 fine classes below its six coarse ones, by a probe or by class descriptions without labels."""
    encoder = models.text_encoder(encoder_name)
    train, test = load_splits(encoder, "trec_fine", "train", "test", limit=limit)
    names = test.dataset.class_names
    edges = hierarchy.prefix_edges(names, root="question")
    if scores == "zero_shot":
        logits = np.asarray(described_head(encoder, test.dataset, template, logit_scale).logits(test.x))
        return _task(
            f"Questions of TREC, {encoder_name}, scored by class descriptions.",
            edges, names, np.arange(len(names)), test.labels, lambda observed: _log_softmax(logits[:, observed]),
        )  # fmt: skip
    about = f"Questions of TREC, {encoder_name}, scored by a linear discriminant that saw the observed classes only."
    return _task(about, edges, names, np.unique(train.labels), test.labels, linear_probe(train.x, train.labels, test.x))


def cifar10(data_dir: Path | None, file: Path | None, *, n_components: int) -> Task:
    """CIFAR-10 with WordNet's tree; the test split is cut in 8,000 examples to train on and 2,000 to test on."""
    if data_dir is None or file is None:
        raise SystemExit(
            "cifar10 needs --data-dir, a folder of TFDS sets that holds cifar10, and --hierarchy, the JSON file of its "
            "WordNet tree (cifar10_wordnet.json)"
        )
    train, test = (data.load("cifar10", split=part, data_dir=data_dir) for part in ("test[:8000]", "test[8000:]"))
    pixels = [np.asarray(part.inputs, np.float32).reshape(len(part), -1) / 255 for part in (train, test)]
    pca = PCA(n_components, whiten=True, random_state=0).fit(pixels[0])
    x, test_x = map(pca.transform, pixels)
    tree = hierarchy.load(file)
    about = f"CIFAR-10, {n_components} principal components of the pixels, scored by a linear discriminant."
    return _task(
        about, tree.tree_edges(contract=True), tree.class_ids, np.unique(train.labels), test.labels,
        linear_probe(x, train.labels, test_x),
    )  # fmt: skip


def simulated(file: Path | None, *, dimension: int, noise: float, n: int, seed: int) -> Task:
    """Simulated scores on a real hierarchy: class means drift along the tree as a Brownian motion, examples are noisy.

    The squared distance of two class means is their distance in the tree, on average. An observed class scores by
    its Gaussian likelihood, so that the scores are those of the best classifier of the observed classes.
    """
    if file is None:
        raise SystemExit(
            "simulated scores need --hierarchy, the JSON file of a WordNet tree (imagenet1k_wordnet.json.gz)"
        )
    tree = hierarchy.load(file)
    edges = tree.tree_edges(contract=True)
    parents = dict(edges)
    rng = np.random.default_rng(seed)
    steps = {node: rng.normal(size=dimension) / np.sqrt(dimension) for node, _ in edges}
    means = np.stack([sum(steps[node] for node in _ancestry(name, parents)) for name in tree.class_ids])
    labels = rng.integers(0, len(means), n)
    x = means[labels] + noise * rng.normal(size=(n, dimension)) / np.sqrt(dimension)

    def scores(observed: np.ndarray) -> np.ndarray:
        inner = x @ means[observed].T - (means[observed] ** 2).sum(axis=1) / 2
        return _log_softmax(inner * dimension / noise**2)

    about = f"SIMULATED scores, no images: Gaussians in {dimension} dimensions along the tree of {tree.name}."
    return _task(about, edges, tree.class_ids, np.arange(len(means)), labels, scores)


def linear_probe(x: np.ndarray, labels: np.ndarray, test_x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Returns scores by a linear discriminant with Ledoit and Wolf's shrinkage, trained on observed classes only."""

    def scores(observed: np.ndarray) -> np.ndarray:
        seen = np.isin(labels, observed)
        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(
            x[seen], labels[seen]
        ).predict_log_proba(test_x)  # fmt: skip

    return scores


def _task(
    about: str,
    edges: Iterable[Edge],
    classes: tuple[Hashable, ...],
    observable: np.ndarray,
    labels: np.ndarray,
    scores: Callable[[np.ndarray], np.ndarray],
) -> Task:
    edges = _without_stem(list(edges), classes)
    tree, leaves = TreeMetric.from_hierarchy(edges), TreeMetric.from_hierarchy(edges, classes)
    parents, seen = dict(edges), {classes[i] for i in observable}
    above = {node for name in seen for node in _ancestry(name, parents)}
    reachable = TreeMetric.from_hierarchy(_without_stem([edge for edge in edges if edge[0] in above], seen))
    return Task(about, tuple(classes), observable, labels, tree, leaves, reachable, scores)


def _without_stem(edges: list[Edge], classes: Iterable[Hashable]) -> list[Edge]:
    """Drops a root that has one child and is no class: as a node of degree one it would count as a leaf."""
    classes = set(classes)
    while len(roots := {parent for _, parent in edges} - {child for child, _ in edges}) == 1:
        stem = [edge for edge in edges if edge[1] in roots]
        if len(stem) > 1 or roots & classes:
            break
        edges = [edge for edge in edges if edge not in stem]
    return edges


def _ancestry(name: Hashable, parents: Mapping[Any, Hashable]) -> list[Any]:
    path = []
    while name in parents:
        path.append(name)
        name = parents[name]
    return path


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
