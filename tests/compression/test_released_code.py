"""The released code of Wanda, SparseGPT and GPTQ, recorded by tests/golden/record_compression.py, and qwix."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.golden import record_compression
from zsml_jax.compression.calibration import statistics_of
from zsml_jax.compression.error_feedback import gptq, sparsegpt
from zsml_jax.models.quantized import NF4, dequantize, quantize


@pytest.fixture(scope="module")
def released():
    return dict(np.load(record_compression.FILE))


@pytest.fixture(scope="module")
def statistics(released):
    return statistics_of(released["x"], gram=True)


def test_the_norms_of_inputs_are_wandas_but_for_a_factor_that_ranks_nothing(released, statistics):
    """It divides by the number of sequences."""
    np.testing.assert_allclose(statistics.squares / record_compression.ROWS, released["wanda"], rtol=1e-5)


def test_sparsegpt_is_the_released_code_but_for_the_one_weight_a_block_that_it_removes_too_many(released, statistics):
    kernel, theirs = released["weight"].T, released["sparsegpt"].T
    _, kept = sparsegpt(kernel, statistics.hessian, 0.5, block=16)
    first = slice(0, 16)
    assert np.sum(theirs[first] == 0) == np.sum(~np.asarray(kept)[first]) + 1
    assert not np.any(~np.asarray(kept)[first] & (theirs[first] != 0))
    # Asked for that weight as well, ours is theirs.
    share = 0.5 + 1 / (16 * record_compression.OUTPUTS)
    np.testing.assert_allclose(sparsegpt(kernel, statistics.hessian, share, block=16)[0], theirs, atol=1e-4)


def test_sparsegpt_of_a_pattern_is_the_released_code(released, statistics):
    ours, _ = sparsegpt(released["weight"].T, statistics.hessian, 0.5, pattern=(2, 4), block=16)
    np.testing.assert_array_equal(np.asarray(ours) == 0, released["sparsegpt_2_4"].T == 0)
    np.testing.assert_allclose(ours, released["sparsegpt_2_4"].T, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [("gptq", {"symmetric": False}), ("gptq_symmetric", {}), ("gptq_groups", {"symmetric": False, "group": 8})],
)
def test_gptq_is_the_released_code(name, scheme, released, statistics):
    ours = dequantize(gptq(released["weight"].T, statistics.hessian, "int4", block=8, **scheme))
    # One weight between two codes may go the other way, and those after it with it.
    assert np.mean(np.abs(np.asarray(ours) - released[name].T) > 1e-3) < 0.02


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["channel", "tensor", 8])
@pytest.mark.parametrize("format", ["int8", "int4", "nf4"])
def test_nearest_codes_are_qwixs(format, group, symmetric, released):
    qarray = pytest.importorskip("qwix._src.core.qarray", reason="qwix is not installed")
    if format == "nf4" and not symmetric:
        pytest.skip("nf4 has no zero point")
    kernel = jnp.asarray(released["weight"].T)
    tiles = {"channel": {}, "tensor": {}, 8: {0: 8}}[group]
    how = qarray.HowToQuantize(
        qtype={"int8": jnp.int8, "int4": jnp.int4, "nf4": "nf4"}[format],
        channelwise_axes=() if group == "tensor" else (1,),
        tiled_axes=tiles,
        calibration_method="absmax" if symmetric else "minmax",
    )
    theirs = qarray.quantize(kernel, how)
    ours = quantize(kernel, format, group=group, symmetric=symmetric)
    np.testing.assert_allclose(ours.scale, theirs.scale, rtol=1e-6)
    differing = np.abs(np.asarray(dequantize(ours)) - np.asarray(qarray.dequantize(theirs))) > 1e-5
    # Both ends of a symmetric range lie half a step from two codes, which rounding may decide either way.
    at_the_ends = np.abs(kernel) > 0.999 * np.abs(kernel).max() if symmetric else np.zeros(kernel.shape, bool)
    assert differing.sum() <= (0 if format == "nf4" else 0.1 * kernel.size)
    if group == "tensor" or not symmetric:
        assert not np.any(differing & ~at_the_ends)
    assert len(NF4) == 16
