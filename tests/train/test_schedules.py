import jax
import numpy as np
import optax
import pytest

from zsml_jax.train import schedules

STEPS = np.arange(0, 40)


def curve(schedule):
    return np.asarray(jax.vmap(schedule)(STEPS))


@pytest.mark.parametrize("warmup", [0, 7])
def test_the_curves_are_those_of_optax(warmup):
    cosine = optax.warmup_cosine_decay_schedule(0.0, 0.3, warmup, 30, 0.02)
    np.testing.assert_allclose(
        curve(schedules.warmup_cosine(0.3, steps=30, warmup_steps=warmup, end=0.02)), curve(cosine), atol=1e-7
    )
    rise, fall = optax.linear_schedule(0.0, 0.3, max(warmup, 1)), optax.linear_schedule(0.3, 0.02, 30 - warmup)
    linear = optax.join_schedules([rise, fall], [warmup])
    np.testing.assert_allclose(
        curve(schedules.warmup_linear(0.3, steps=30, warmup_steps=warmup, end=0.02)), curve(linear), atol=1e-7
    )
    flat = optax.join_schedules([rise, optax.constant_schedule(0.3)], [warmup])
    np.testing.assert_allclose(curve(schedules.constant(0.3, warmup_steps=warmup)), curve(flat), atol=1e-7)


def test_rsqrt_meets_its_peak_at_the_end_of_the_warm_up_and_halves_when_the_steps_are_four_times_as_many():
    rate = schedules.rsqrt(0.2, warmup_steps=8)
    np.testing.assert_allclose([rate(4), rate(8), rate(32)], [0.1, 0.2, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant(-1.0), "peak must be finite and not negative, got -1.0"),
        (lambda: schedules.constant(np.nan), "peak must be finite and not negative, got nan"),
        (lambda: schedules.warmup_cosine(1.0, steps=5, warmup_steps=6), "warmup_steps must not exceed steps"),
        (lambda: schedules.rsqrt(1.0, warmup_steps=-2), "warmup_steps must be finite and not negative"),
    ],
)
def test_numbers_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
