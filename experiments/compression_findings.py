"""The four findings of The Cost of Compression as contrasts of the same facts, each with a paired interval."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.compression_config import Study
from experiments.compression_points import Point, head_points
from experiments.otter import bounds
from zsml_jax import evaluate


class Finding(NamedTuple):
    """A finding as a number.

    Attributes:
      claim: what the paper says.
      measure: what the number is.
      value: the number with its interval ``(value, low, high)``, in shares of the facts; positive is for the claim.
    """

    claim: str
    measure: str
    value: tuple[float, float, float]

    @property
    def verdict(self) -> str:
        """Whether the number confirms or refutes the claim, or its interval holds zero."""
        _, low, high = self.value
        return "confirmed" if low > 0 else "refuted" if high < 0 else "not decided"


def hits(result: Mapping[str, Any]) -> np.ndarray:
    """Returns for each fact whether its answer came first."""
    return (np.asarray(result["ranks"]) == 1).astype(np.float32)


def findings(config: Study, results: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Returns the paper's findings, of pruning by magnitude and of dynamic quantisation, as the paper has them.

    All are of precision at 1, in contrasts that are means over facts, so that a bootstrap of the facts is a paired one.
    """
    dense = hits(results["dense"])
    curve = lambda group: [hits(results[Point(group, "magnitude", s).name]) for s in config.sparsities]
    mean_of = lambda group: np.mean(curve(group), axis=0)
    found = []
    if {"attention", "feed_forward", "all"} <= set(config.groups):
        for group in ("attention", "feed_forward"):
            found.append(
                Finding(
                    "Pruning all modules together hurts most",
                    f"P@1 of pruned {_words(group)} less that of all modules pruned, mean over sparsities",
                    _interval(mean_of(group) - mean_of("all")),
                )
            )
    if "all" in config.groups and 0.5 in config.sparsities:
        half = curve("all")[config.sparsities.index(0.5)]
        found.append(
            Finding(
                "Knowledge falls rapidly above 50 % sparsity",
                f"P@1 lost from 50 % to {100 * config.sparsities[-1]:g} %, less that lost up to 50 %, all modules",
                _interval((half - curve("all")[-1]) - (dense - half)),
            )
        )
    if {"attention", "feed_forward"} <= set(config.groups) and "int8 dynamic" in config.schemes:
        scheme = lambda group: hits(results[Point(group, scheme="int8 dynamic").name])
        found.append(
            Finding(
                "Quantising attention costs less than feed-forward",
                "P@1 with int8 dynamic attention, less that with int8 dynamic feed-forward",
                _interval(scheme("attention") - scheme("feed_forward")),
            )
        )
    if config.head_sparsities:
        way = lambda within: [p for p in head_points(config) if p.pruning == "magnitude" and p.within == within]
        mean = lambda chosen: np.mean([hits(results[point.name]) for point in chosen], axis=0)
        found.append(
            Finding(
                "Structured pruning of the final layer is worse than unstructured",
                "P@1 with weights of the final layer removed, less that with whole words removed, mean over sparsities",
                _interval(mean(way("global")) - mean(way("rows"))),
            )
        )
    return found


def _interval(contrast: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """The mean of a contrast of each fact, with its bootstrap interval."""
    return bounds(evaluate.bootstrap_interval(jnp.mean, np.asarray(contrast, np.float32), key=jax.random.key(0)))


def _words(group: str) -> str:
    return group.replace("_", "-")
