"""XLA's own cost analysis is the oracle where nothing is scanned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.train import throughput


def flops_of_xla(fn, *arguments):
    return jax.jit(fn).lower(*arguments).compile().cost_analysis()["flops"]


def test_products_count_as_xla_counts_them():
    a, b = jnp.zeros((64, 32)), jnp.zeros((5, 32, 48))
    fn = lambda a, b: jnp.einsum("ij,bjk->bik", a, b)
    assert throughput.matmul_flops(fn, a, b) == flops_of_xla(fn, a, b) == 2 * 5 * 64 * 32 * 48


def test_a_convolution_counts_two_operations_for_each_weight_and_output():
    x, kernel = jnp.zeros((2, 8, 8, 4)), jnp.zeros((3, 3, 2, 6))
    fn = lambda x, k: jax.lax.conv_general_dilated(
        x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )
    assert throughput.matmul_flops(fn, x, kernel) == 2 * (2 * 6 * 6 * 6) * (3 * 3 * 2)


def test_a_scan_counts_as_often_as_it_goes_round_and_branches_and_inner_functions_count():
    w = jnp.zeros((8, 8))
    layer = lambda x, _: (jax.checkpoint(jax.jit(lambda x: jnp.tanh(x @ w)))(x), None)
    scanned = lambda x: jax.lax.scan(layer, x, None, length=7)[0]
    assert throughput.matmul_flops(scanned, w) == 7 * 2 * 8**3
    either = lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)
    assert throughput.matmul_flops(either, w) == 2 * 2 * 8**3


def test_a_step_is_three_forward_passes_and_two_where_weights_are_frozen():
    loss = lambda params, x: (x @ params).sum()
    params, x = jnp.zeros((4, 5)), jnp.zeros((3, 4))
    assert throughput.step_flops(loss, params, x) == 3 * 2 * 3 * 4 * 5
    assert throughput.step_flops(loss, params, x, any_frozen=True) == 2 * 2 * 3 * 4 * 5


def test_the_clock_stands_still_while_paused():
    times = iter([0.0, 2.0, 10.0, 12.0, 12.0])
    clock = throughput.Throughput(clock=lambda: next(times))
    clock.count(6.0)
    clock.count(6.0)
    with clock.paused():
        pass
    assert clock.rates() == pytest.approx((3.0, 0.5))
    assert clock.rates()[0] == 0.0


def test_rates_may_be_read_while_paused():
    times = iter([0.0, 2.0, 7.0, 8.0, 10.0])
    clock = throughput.Throughput(clock=lambda: next(times))
    clock.count(6.0)
    with clock.paused():
        assert clock.rates() == pytest.approx((3.0, 0.5))
    clock.count(4.0)
    assert clock.rates() == pytest.approx((2.0, 0.5))


def test_the_measured_peak_is_a_positive_number():
    peak = throughput.peak_flops(jnp.float32, size=64, repeats=2)
    assert np.isfinite(peak) and peak > 0
