"""Learning rates over time as data: a kind, which is static, and numbers, which stay traced inside an optimizer.

Each is also an optax schedule, a function of the number of steps done. All begin with a linear warm-up from zero to
the peak, which they reach after ``warmup_steps`` steps::

    warmup_cosine:  end + (peak - end) (1 + cos(pi (s - w) / (n - w))) / 2
    warmup_linear:  peak + (end - peak) (s - w) / (n - w)
    rsqrt:          peak sqrt(max(w, 1) / s)
    constant:       peak
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.train.number_range import require_not_negative
from zsml_jax.typing import Array, Scalar


class Schedule(NamedTuple):
    """A learning rate as a function of the number of steps done.

    Attributes:
      kind: the curve after the warm-up.
      peak: the largest rate.
      warmup_steps: steps of the linear warm-up.
      steps: the step at which the curve reaches ``end``; later rates stay there.
      end: the last rate.
    """

    kind: Literal["constant", "cosine", "linear", "rsqrt"]
    peak: Scalar
    warmup_steps: Scalar
    steps: Scalar
    end: Scalar

    def __call__(self, step: Scalar) -> Array:
        """Returns the rate of the step that follows ``step`` others."""
        step, warmup = jnp.asarray(step, jnp.float32), jnp.asarray(self.warmup_steps, jnp.float32)
        rising = self.peak * step / jnp.maximum(warmup, 1)
        done = jnp.clip((step - warmup) / jnp.maximum(self.steps - warmup, 1), 0, 1)
        match self.kind:
            case "cosine":
                falling = self.end + (self.peak - self.end) * (1 + jnp.cos(jnp.pi * done)) / 2
            case "linear":
                falling = self.peak + (self.end - self.peak) * done
            case "rsqrt":
                falling = self.peak * jnp.sqrt(jnp.maximum(warmup, 1) / jnp.maximum(step, 1))
            case _:
                falling = jnp.asarray(self.peak, jnp.float32)
        return jnp.where(step < warmup, rising, falling)


def constant(peak: Scalar, *, warmup_steps: Scalar = 0) -> Schedule:
    """Returns a rate that stays at its peak after the warm-up."""
    return _checked(Schedule("constant", peak, warmup_steps, warmup_steps, peak))


def warmup_cosine(peak: Scalar, *, steps: Scalar, warmup_steps: Scalar = 0, end: Scalar = 0.0) -> Schedule:
    """Returns half a cosine from the peak to ``end`` at ``steps`` (Loshchilov & Hutter, 2017, without restarts).

    >>> [round(float(warmup_cosine(1.0, steps=6, warmup_steps=2)(step)), 4) for step in (0, 1, 2, 4, 6, 9)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    return _checked(Schedule("cosine", peak, warmup_steps, steps, end))


def warmup_linear(peak: Scalar, *, steps: Scalar, warmup_steps: Scalar = 0, end: Scalar = 0.0) -> Schedule:
    """Returns a straight line from the peak to ``end`` at ``steps``."""
    return _checked(Schedule("linear", peak, warmup_steps, steps, end))


def rsqrt(peak: Scalar, *, warmup_steps: Scalar) -> Schedule:
    """Returns a rate that falls as one over the root of the step (Vaswani et al., 2017, equation 3)."""
    return _checked(Schedule("rsqrt", peak, warmup_steps, warmup_steps, 0.0))


def _checked(schedule: Schedule) -> Schedule:
    """Refuses numbers out of their range; traced ones, of a study, are taken as they are."""
    for name in ("peak", "warmup_steps", "steps", "end"):
        require_not_negative(name, getattr(schedule, name))
    numbers = schedule.warmup_steps, schedule.steps
    if not any(isinstance(number, jax.core.Tracer) for number in numbers) and np.any(numbers[0] > numbers[1]):
        raise ValueError(f"warmup_steps must not exceed steps, got {numbers[0]} and {numbers[1]}")
    return schedule
