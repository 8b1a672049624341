"""What a run of threshold-based auto-labelling is told."""

import dataclasses
import functools
from typing import get_args

import jax

from zsml_jax.autolabel import thresholds
from zsml_jax.autolabel.classifier import Classifier
from zsml_jax.autolabel.confidence import Confidence, Softmax
from zsml_jax.autolabel.queries import Strategy
from zsml_jax.autolabel.training import Training
from zsml_jax.typing import Scalar


@dataclasses.dataclass(frozen=True)
class Roles:
    """How many labelled points are bought for each job, beside those that are trained on; drawn at random, disjoint.

    Attributes:
      selection: choose the classifier's checkpoint.
      calibration: fit the confidence function.
      threshold: estimate thresholds.
      audit: do nothing before the end, where they say what the error really is.
    """

    selection: int
    calibration: int
    threshold: int
    audit: int = 0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 0 or (name in ("calibration", "threshold") and value < 1):
                raise ValueError(f"{name} must be {'at least 1' if name[0] in 'ct' else 'not negative'}, got {value}")

    @property
    def total(self) -> int:
        """All of them."""
        return self.selection + self.calibration + self.threshold + self.audit


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["confidence", "training", "error", "failure", "deviations", "min_count"],
    meta_fields=[
        *("classifier", "n_classes", "roles", "seed", "batch", "budget", "query", "widening"),
        *("method", "shared", "reuse", "fresh", "labels_when", "chunk"),
    ],
)
@dataclasses.dataclass(frozen=True)
class Config:
    """A run's settings; numbers are traced, what decides shapes is static.

    Attributes:
      classifier: what is trained.
      n_classes: the number of classes k.
      roles: labelled points beside those trained on.
      confidence: the confidence function.
      training: how the classifier is trained.
      error: the largest error of auto-labels, epsilon.
      failure: the probability of exceeding it, of certified thresholds.
      deviations: the constant of ``sigma`` and ``hoeffding``.
      min_count: points that must be exceeded above a threshold that is not certified.
      seed: points asked for before the first round.
      batch: points asked for after each round.
      budget: points asked for in all, those with roles not counted.
      query: how they are chosen.
      widening: the constant of ``margin_random``.
      method: how thresholds are admitted, see :mod:`.thresholds`.
      shared: one threshold for all classes.
      reuse: as in the papers: all points with roles choose the checkpoint, and each round divides those that are left
        at random into calibration and threshold points.
      fresh: each round estimates thresholds on points that no earlier round has seen, an equal share of them. Certified
        thresholds are valid without it in a single round; in later ones the classifier has been trained on queries
        that earlier decisions, made on the same points, led to.
      labels_when: ``"every_round"``, or ``"last_round"`` for selective classification after all queries, or ``"all"``
        for labelling everything that is left at the end.
      chunk: points that go through the classifier at a time.
    """

    classifier: Classifier
    n_classes: int
    roles: Roles
    confidence: Confidence = dataclasses.field(default_factory=Softmax)
    training: Training = dataclasses.field(default_factory=Training)
    error: Scalar = 0.05
    failure: Scalar = 0.1
    deviations: Scalar = 0.25
    min_count: Scalar = 10
    seed: int = 100
    batch: int = 25
    budget: int = 500
    query: Strategy = "margin_random"
    widening: int = 2
    method: thresholds.Method = "certified"
    shared: bool = False
    reuse: bool = False
    fresh: bool = False
    labels_when: str = "every_round"
    chunk: int = 4096

    def __post_init__(self):
        if self.n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, got {self.n_classes}")
        for name in ("seed", "batch", "chunk", "widening"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.budget < self.seed:
            raise ValueError(f"budget must be at least the {self.seed} points of the seed, got {self.budget}")
        for name, kind in (("query", Strategy), ("method", thresholds.Method)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}")
        if self.labels_when not in ("every_round", "last_round", "all"):
            raise ValueError(f"labels_when must be every_round, last_round or all, got {self.labels_when!r}")
        if getattr(self.confidence, "shared", self.shared) != self.shared:
            raise ValueError(f"shared must be that of the confidence function, {not self.shared}, got {self.shared}")
        if self.reuse and (self.fresh or self.roles.audit):
            raise ValueError("reuse must be False with fresh points or an audit, which the papers have not")

    @property
    def rounds(self) -> int:
        """How often a classifier is trained: once on the seed, and once after each batch."""
        return 1 + -(-(self.budget - self.seed) // self.batch)

    @property
    def looks(self) -> int:
        """How often thresholds are estimated."""
        return self.rounds if self.labels_when == "every_round" else 1

    def as_in_the_papers(self) -> "Config":
        """Returns these settings with the papers' reuse of labelled points, their thresholds, and no audit."""
        roles = dataclasses.replace(self.roles, audit=0)
        return dataclasses.replace(self, roles=roles, method="sigma", reuse=True, fresh=False, query="margin_random")
