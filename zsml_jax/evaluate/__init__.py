"""Measures of classifiers and language models, and how sure one may be of them.

Start with :mod:`.metrics` for plain classification, :mod:`.groups` for averages and the worst case over groups,
:mod:`.calibration` for probabilities, :mod:`.language_modelling` for language models, and :func:`bootstrap_interval`
for the uncertainty of any of them. Labels come first, and all metrics run under ``jit`` and ``vmap``.
:mod:`.ranking` measures link prediction, on the host.

Of a pretrained model, :func:`perplexity` scores texts, :mod:`.lama` asks for facts, and :mod:`.lm_eval` lets the
evaluation harness of EleutherAI ask whatever its tasks do. These need the code of models, and are imported when first
used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from zsml_jax.evaluate.bootstrap import (
    Interval,
    bootstrap_distribution,
    bootstrap_interval,
    paired_difference_interval,
    seed_interval,
)
from zsml_jax.evaluate.calibration import (
    Reliability,
    brier_score,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
)
from zsml_jax.evaluate.groups import (
    GroupAccuracies,
    accuracy_gap,
    group_accuracies,
    macro_group_average,
    micro_average,
    train_weighted_average,
    worst_group_accuracy,
)
from zsml_jax.evaluate.language_modelling import (
    bits_per_byte,
    next_token_nats,
    perplexity_per_token,
    token_nats,
)
from zsml_jax.evaluate.metrics import (
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    label_histogram,
    per_class_recall,
    recall_std,
    top_k_accuracy,
    total_variation,
)

if TYPE_CHECKING:
    from zsml_jax.evaluate import facts, lama
    from zsml_jax.evaluate.continuations import Continuation, Scored, score_continuations
    from zsml_jax.evaluate.text_scores import TextScores, perplexity

__all__ = [
    "Continuation",
    "GroupAccuracies",
    "Interval",
    "Reliability",
    "Scored",
    "TextScores",
    "accuracy",
    "accuracy_gap",
    "balanced_accuracy",
    "bits_per_byte",
    "bootstrap_distribution",
    "bootstrap_interval",
    "brier_score",
    "confusion_matrix",
    "expected_calibration_error",
    "facts",
    "group_accuracies",
    "label_histogram",
    "lama",
    "macro_group_average",
    "micro_average",
    "negative_log_likelihood",
    "next_token_nats",
    "paired_difference_interval",
    "per_class_recall",
    "perplexity",
    "perplexity_per_token",
    "recall_std",
    "reliability",
    "score_continuations",
    "seed_interval",
    "token_nats",
    "top_k_accuracy",
    "total_variation",
    "train_weighted_average",
    "worst_group_accuracy",
]

#: Where the names are that need a pretrained model; None where the name is a module itself.
_LATER = {
    "Continuation": "continuations",
    "Scored": "continuations",
    "TextScores": "text_scores",
    "facts": None,
    "lama": None,
    "perplexity": "text_scores",
    "score_continuations": "continuations",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'zsml_jax.evaluate' has no attribute {name!r}")
    module = importlib.import_module(f"zsml_jax.evaluate.{_LATER[name] or name}")
    return getattr(module, name) if _LATER[name] else module


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
