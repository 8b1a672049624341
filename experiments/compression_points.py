"""The points of the compression study: what is removed or rounded, of which modules, how much."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.compression_config import Study
from zsml_jax import compression
from zsml_jax.models import quantized
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.typing import Params

#: By the name of a scheme, the method and its options; formats of four bits have scales of groups.
_SCHEMES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "int8 dynamic": ("dynamic", {}),
    "int8": ("nearest", {"format": "int8"}),
    "int8 SmoothQuant": ("smoothquant", {"format": "int8"}),
    "int4": ("nearest", {"format": "int4"}),
    "int4 GPTQ": ("gptq", {"format": "int4"}),
    "int4 AWQ": ("awq", {"format": "int4"}),
    "nf4": ("nearest", {"format": "nf4"}),
}
#: Schemes whose products are of integers; of the others the arrays that they stand for run in the dense program.
_INTEGER_PRODUCTS = ("int8 dynamic", "int8 SmoothQuant")


@dataclasses.dataclass(frozen=True)
class Point:
    """One way to compress.

    Attributes:
      group: the modules.
      pruning: how weights are removed; empty for none.
      sparsity: the share of the group's weights that is removed.
      scheme: how what is left is rounded; empty for none.
      within: what scores are compared within; empty for the method's own.
    """

    group: str
    pruning: str = ""
    sparsity: float = 0.0
    scheme: str = ""
    within: str = ""

    @property
    def name(self) -> str:
        """What the run folder calls it."""
        pruned = [self.pruning, f"{self.sparsity:.6g}", self.within] if self.pruning else []
        return " ".join(part for part in (*pruned, self.scheme, "of", self.group) if part)


class Compressed(NamedTuple):
    """A compressed model.

    Attributes:
      params: what the model runs with.
      stored: what would be stored.
      masks: of the pruned kernels, empty if there are none.
    """

    params: Params
    stored: Params
    masks: Mapping[str, Any]


def pruning_points(config: Study) -> list[Point]:
    """Every group by every method at every sparsity."""
    return [Point(g, m, s) for m in config.prunings for g in config.groups for s in config.sparsities]


def budget_points(config: Study, pretrained: Pretrained) -> dict[float, list[Point]]:
    """By share of the smallest group's weights, every group with so many weights removed, by magnitude."""
    found = compression.groups(pretrained)
    chosen = {name: found[name] for name in config.groups}
    smallest = min(compression.weights(pretrained.params, paths) for paths in chosen.values())
    points = {}
    for share in config.budgets:
        even = compression.equal_budget(pretrained.params, chosen, round(share * smallest))
        points[share] = [Point(name, "magnitude", even[name]) for name in config.groups]
    return points


def scheme_points(config: Study) -> list[Point]:
    """Every group by every scheme."""
    return [Point(g, scheme=scheme) for scheme in config.schemes for g in config.groups]


def combined_points(config: Study) -> list[Point]:
    """Every group pruned by magnitude, then quantised as the paper does."""
    return [Point(g, "magnitude", s, "int8 dynamic") for s in config.combined_sparsities for g in config.groups]


def head_points(config: Study) -> list[Point]:
    """The final layer by weights and by whole words."""
    ways = [("magnitude", "global"), ("random", "global"), ("magnitude", "rows"), ("random", "rows")]
    return [Point("head", m, s, within=w) for m, w in ways for s in config.head_sparsities]


def compress(config: Study, point: Point, pretrained: Pretrained, calibration: Any) -> Compressed:
    """Returns a model compressed as a point says."""
    paths = compression.groups(pretrained)[point.group]
    params, masks = pretrained.params, {}
    if point.pruning:
        way: Any = point.pruning
        needs_data = way in ("wanda", "sparsegpt")
        pruned = compression.prune(
            params,
            way,
            point.sparsity,
            groups=paths,
            calibration=calibration if needs_data else None,
            within=point.within or None,
            key=jax.random.key(config.seed),
        )
        params, masks = pruned.params, pruned.masks
    if not point.scheme:
        return Compressed(params, params, masks)
    method, options = _SCHEMES[point.scheme]
    given: dict[str, Any] = {**options}
    if options.get("format") in ("int4", "nf4"):
        given["group"] = config.group_size
    needs_data = method in ("gptq", "awq", "smoothquant")
    stored = compression.quantize(
        params, method, groups=paths, calibration=calibration if needs_data else None, **given
    )
    runs = stored if point.scheme in _INTEGER_PRODUCTS else quantized.dequantize(stored)
    return Compressed(runs, stored, masks)


def lost_words(masks: Mapping[str, Any]) -> np.ndarray:
    """Returns which words a head can no longer write, as all of their weights are removed."""
    (mask,) = masks.values()
    return np.logical_not(np.asarray(mask).any(axis=0))
