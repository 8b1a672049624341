"""The methods of the AutoWS benchmark: each labels test examples from a few labelled training examples."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import autows_features
from experiments.autows_features import Problem
from zsml_jax.typing import Key
from zsml_jax.weaksup import (
    ABSTAIN,
    LabelingFunctions,
    NoFunctionsError,
    affinity,
    foundation_votes,
    goggles,
    iws,
    label_model,
    label_propagation,
    protocol,
    snuba,
    softmax_regression,
)

#: Rows that Snuba measures the overlap of its functions on: shares to 1.6 points, beside accuracies on 100 labels.
_COVERAGE_ROWS = 1000
#: Examples without a label that are in the graph when its width is tuned, at most.
_TUNING_ROWS = 500


def measure(problem: Problem, method: str, *, count: int, stratified: bool, seed: int) -> dict[str, float | None]:
    """Runs a method with one draw of labels.

    Args:
      problem: features and labels.
      method: a name of :data:`METHODS`.
      count: how many training examples have a label.
      stratified: whether each class gets its share of them.
      seed: of the draw, and of all that the method draws.

    Returns:
      Accuracy on covered test examples, coverage, adjusted accuracy, and the accuracy of a linear end model that was
      trained on the posterior of the training examples, where there is one.
    """
    key = jax.random.key(seed)
    rows = protocol.labelled_sample(problem.y, count, key=jax.random.fold_in(key, 0), stratified=stratified)
    labels = np.full(len(problem.y), -1)
    labels[rows] = problem.y[rows]
    counts = np.bincount(problem.y[rows], minlength=int(problem.y.max()) + 1)
    predictions, posterior, voted = METHODS[method](problem, labels, counts, jax.random.fold_in(key, 1))
    found = protocol.scores(jnp.asarray(problem.test_y), jnp.asarray(predictions), fallback=int(counts.argmax()))
    result: dict[str, float | None] = {name: float(value) for name, value in found._asdict().items()}
    result = {name: None if value is None or np.isnan(value) else value for name, value in result.items()}
    result["end_model"] = None
    if posterior is not None:
        ended = softmax_regression.fit_soft(problem.x, posterior, jnp.asarray(voted, jnp.float32))
        guesses = np.asarray(ended.posterior(problem.test_x).argmax(axis=1))
        result["end_model"] = float((guesses == problem.test_y).mean())
    return result


def applies(method: str, kind: str) -> bool:
    """Whether a method goes with a kind of features: ``zero_shot`` needs a model that was asked about the classes."""
    return method != "zero_shot" or kind in autows_features.ZERO_SHOT


def _functions(find: Callable[..., LabelingFunctions]) -> Callable:
    """Finds functions, and turns their votes into labels by Snorkel's label model, or by counting fewer than three.

    Where no heuristic is sure enough to vote, nothing is labelled.
    """

    def run(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
        try:
            functions = find(problem.x, labels, key=key)
        except NoFunctionsError:
            return np.full(len(problem.test_y), ABSTAIN), None, None
        k, votes = len(counts), functions.votes(problem.test_x)
        balance = (counts + 1) / (counts + 1).sum()
        if len(functions) >= 3:
            model = label_model.metal.fit(functions.fitted_votes, k, class_balance=balance)
        else:
            model = label_model.majority_vote.fit(functions.fitted_votes, k)
        voted = np.asarray((functions.fitted_votes != ABSTAIN).any(axis=1))
        return model.predict(votes), model.posterior(functions.fitted_votes), voted

    return run


def _snuba(polarity: Any) -> Callable[..., LabelingFunctions]:
    config = snuba.Config(polarity=polarity, coverage_rows=_COVERAGE_ROWS)
    return lambda x, labels, *, key: snuba.fit(x, labels, config, key=key)


def _iws(x: np.ndarray, labels: np.ndarray, *, key: Key) -> LabelingFunctions:
    candidates = 2 * x.shape[1]
    queries = min(25, max(1, candidates - 4))
    return iws.fit(x, labels, iws.Config(queries=queries, first_queries=min(4, candidates - queries)), key=key)


def _goggles(variant: Any) -> Callable:
    def run(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
        anchors = problem.x[labels != -1]
        alike = affinity.cosine(problem.x, anchors)[None]
        fitted = goggles.fit(alike, labels, goggles.Config(variant=variant), key=key)
        test = fitted.posterior(affinity.cosine(problem.test_x, anchors)[None])
        return test.argmax(axis=1), fitted.posterior(alike), np.ones(len(labels))

    return run


def _few_shot(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
    fitted = softmax_regression.fit_labelled(problem.x, labels)
    return fitted.posterior(problem.test_x).argmax(axis=1), None, None


def _few_shot_tuned(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
    penalty = softmax_regression.tune(problem.x, labels, key=key, folds=_folds(counts))
    fitted = softmax_regression.fit_labelled(problem.x, labels, inverse_penalty=penalty)
    return fitted.posterior(problem.test_x).argmax(axis=1), None, None


def _zero_shot(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
    assert problem.zero_shot is not None and problem.test_zero_shot is not None, "see applies"
    guesses = foundation_votes.votes([problem.test_zero_shot])[:, 0]
    return guesses, problem.zero_shot, np.ones(len(labels))


def _label_propagation(problem: Problem, labels: np.ndarray, counts: np.ndarray, key: Key) -> tuple[Any, Any, Any]:
    """The graph holds the labelled and the test examples; its width is tuned on labels that are hidden in turn.

    Some test examples are there when it is tuned: a width that suits a few labelled ones reaches too far among many.
    """
    x = np.concatenate([problem.x[labels != -1], problem.test_x])
    given = np.concatenate([labels[labels != -1], np.full(len(problem.test_x), -1)])
    labelled_only = given != -1
    step = -(-len(problem.test_x) // _TUNING_ROWS)
    some = np.concatenate([np.flatnonzero(labelled_only), np.flatnonzero(~labelled_only)[::step]])
    gamma = label_propagation.tune(x[some], given[some], key=key, folds=_folds(counts))
    output = label_propagation.propagate(x, given, gamma=gamma)
    return output.posterior[~labelled_only].argmax(axis=1), None, None


def _folds(counts: np.ndarray) -> int:
    return min(5, int(counts.sum()))


METHODS: dict[str, Callable] = {
    "snuba": _functions(_snuba("unipolar")),
    "snuba_multipolar": _functions(_snuba("multipolar")),
    "iws": _functions(_iws),
    "goggles": _goggles("clamped"),
    "goggles_released": _goggles("unclamped"),
    "few_shot": _few_shot,
    "few_shot_tuned": _few_shot_tuned,
    "zero_shot": _zero_shot,
    "label_propagation": _label_propagation,
}
