"""Automated weak supervision: from a hundred labels, or none, to labels for all.

Labelling functions vote or abstain. :func:`apply` runs a person's own; :mod:`.snuba` and :mod:`.iws` find them, given
features and a few labels; :mod:`.foundation_votes` makes them of zero-shot predictions. :func:`analyze` says what they
do, a model of :mod:`.label_model` turns votes into the probability of each class, and :mod:`.softmax_regression` or
:mod:`.end_model` learns from that to label anything. :mod:`.goggles` and :mod:`.label_propagation` go without
functions.
"""

from zsml_jax.weaksup import (
    affinity,
    comparison,
    end_model,
    foundation_votes,
    goggles,
    heuristics,
    image_domains,
    iws,
    label_model,
    label_propagation,
    protocol,
    snuba,
    softmax_regression,
    synthetic,
)
from zsml_jax.weaksup.analysis import Analysis, analyze
from zsml_jax.weaksup.applying import apply
from zsml_jax.weaksup.functions import LabelingFunctions, NoFunctionsError
from zsml_jax.weaksup.vote_matrix import ABSTAIN

__all__ = [
    "ABSTAIN",
    "Analysis",
    "LabelingFunctions",
    "NoFunctionsError",
    "affinity",
    "analyze",
    "apply",
    "comparison",
    "end_model",
    "foundation_votes",
    "goggles",
    "heuristics",
    "image_domains",
    "iws",
    "label_model",
    "label_propagation",
    "protocol",
    "snuba",
    "softmax_regression",
    "synthetic",
]
