"""When to stop because a metric no longer gets better."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple


class Best(NamedTuple):
    """The best value so far.

    Attributes:
      value: the value; infinite, on the bad side, before the first.
      step: the step it was measured at; -1 before the first.
      waited: how many measurements since were not better.
    """

    value: float
    step: int
    waited: int


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stops when a metric has not become better in ``patience`` measurements in a row.

    >>> rule = EarlyStopping("validation/loss", patience=2)
    >>> best = rule.start()
    >>> for step, loss in enumerate([3.0, 2.0, 2.5, 2.1]):
    ...     best = rule.update(best, step, {"validation/loss": loss})
    >>> best, rule.stops(best)
    (Best(value=2.0, step=1, waited=2), True)

    Attributes:
      metric: the metric as an evaluator names it, ``evaluator/metric``.
      patience: measurements without a better value before the run stops.
      mode: whether lower or higher is better.
      min_delta: by how much a value must be better to count.
    """

    metric: str
    patience: int
    mode: Literal["min", "max"] = "min"
    min_delta: float | int = 0.0

    def __post_init__(self):
        if self.patience < 1:
            raise ValueError(f"patience must be at least 1, got {self.patience}")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {self.mode!r}")
        if not self.min_delta >= 0:
            raise ValueError(f"min_delta must not be negative, got {self.min_delta}")

    def start(self) -> Best:
        """Returns the state before the first measurement."""
        return Best(math.inf if self.mode == "min" else -math.inf, -1, 0)

    def update(self, best: Best, step: int, metrics: Mapping[str, float | int]) -> Best:
        """Returns the state after a measurement; metrics without this one change nothing. NaN is never better."""
        if self.metric not in metrics:
            return best
        value = float(metrics[self.metric])
        gain = best.value - value if self.mode == "min" else value - best.value
        return Best(value, step, 0) if gain > self.min_delta else best._replace(waited=best.waited + 1)

    def stops(self, best: Best) -> bool:
        """Whether the run should stop."""
        return best.waited >= self.patience
