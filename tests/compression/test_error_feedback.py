"""SparseGPT and GPTQ against least squares, and against the algorithms restated in torch as their papers have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.compression.error_feedback import gptq, inverse_factor, sparsegpt, sweep
from zsml_jax.models.quantized import dequantize, quantize


def problem(inputs=12, outputs=5, samples=64, seed=0):
    """Correlated inputs, a kernel, and the Hessian of the squared error."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, inputs)) @ rng.normal(size=(inputs, inputs)) / np.sqrt(inputs)
    kernel = rng.normal(size=(inputs, outputs))
    return x, kernel.astype(np.float32), (2 * x.T @ x / samples).astype(np.float32)


def test_the_factor_is_that_of_the_inverse_hessian():
    _, _, hessian = problem()
    factor = np.asarray(inverse_factor(hessian, 0.01), np.float64)
    damped = hessian + 0.01 * np.diagonal(hessian).mean() * np.eye(len(hessian))
    np.testing.assert_allclose(factor.T @ factor, np.linalg.inv(damped), rtol=2e-3, atol=2e-3)
    assert np.all(np.tril(factor, -1) == 0) and np.all(np.diagonal(factor) > 0)


@pytest.mark.parametrize("block", [12, 4, 1])
@pytest.mark.parametrize("fixed", [1, 5, 11])
def test_what_the_first_inputs_lose_is_made_up_for_by_a_least_squares_fit_of_the_others(block, fixed):
    """The closed form: the later weights are those that fit the old outputs best, the first ones being as they are."""
    x, kernel, hessian = problem()
    place = np.arange(12).reshape(-1, block)
    new, _ = sweep(
        kernel,
        inverse_factor(hessian, 0.0),
        block=block,
        plan=lambda tile, diagonal, number: jnp.asarray(place)[number],
        change=lambda row, i: jnp.where(i < fixed, jnp.round(row), row),
    )
    left = x @ kernel - x[:, :fixed] @ np.asarray(new[:fixed], np.float64)
    expected = np.linalg.lstsq(x[:, fixed:], left, rcond=None)[0]
    np.testing.assert_allclose(new[fixed:], expected, atol=2e-3)


def test_without_correlations_sparsegpt_is_magnitude_pruning_and_nothing_is_adjusted():
    _, kernel, _ = problem()
    new, kept = sparsegpt(kernel, np.eye(12, dtype=np.float32), 0.5)
    threshold = np.sort(np.abs(kernel).ravel())[30]
    np.testing.assert_array_equal(kept, np.abs(kernel) >= threshold)
    np.testing.assert_allclose(new, np.where(kept, kernel, 0), atol=1e-6)


@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.5, 0.9])
@pytest.mark.parametrize("block", [4, 128])
def test_sparsegpt_removes_exactly_the_share_and_errs_less_than_magnitudes(sparsity, block):
    x, kernel, hessian = problem()
    new, kept = sparsegpt(kernel, hessian, sparsity, block=block)
    assert np.sum(~np.asarray(kept)) == round(sparsity * 60)
    assert np.all(np.asarray(new)[~np.asarray(kept)] == 0)
    if 0 < sparsity <= 0.5:
        largest = np.abs(kernel) >= np.sort(np.abs(kernel).ravel())[round(sparsity * 60)]
        error = lambda other: np.square(x @ (np.asarray(other) - kernel)).sum()
        assert error(new) < error(np.where(largest, kernel, 0))


def test_features_that_are_always_zero_get_no_weight():
    x, kernel, _ = problem()
    x[:, 3] = 0
    new, _ = sparsegpt(kernel, (2 * x.T @ x / len(x)).astype(np.float32), 0.25)
    assert np.all(np.asarray(new)[3] == 0) and np.all(np.isfinite(new))


@pytest.mark.parametrize("scheme", [{}, {"symmetric": False}, {"group": 4}, {"group": "tensor"}])
def test_gptq_errs_less_than_rounding_to_the_nearest(scheme):
    x, kernel, hessian = problem()
    ours = gptq(kernel, hessian, "int4", **scheme)
    error = lambda other: np.square(x @ (np.asarray(dequantize(other)) - kernel)).sum()
    assert error(ours) < 0.8 * error(quantize(kernel, "int4", **scheme))
    assert ours.codes.dtype == jnp.uint8 and ours.shape == kernel.shape


def test_gptq_without_correlations_is_rounding_to_the_nearest():
    _, kernel, _ = problem()
    identity = np.eye(12, dtype=np.float32)
    for symmetric in (True, False):
        ours = dequantize(gptq(kernel, identity, "int8", symmetric=symmetric))
        nearest = dequantize(quantize(kernel, "int8", symmetric=symmetric))
        # The end of a symmetric range lies half a step from two codes.
        np.testing.assert_allclose(np.abs(ours - kernel), np.abs(nearest - kernel), atol=1e-6)


def test_gptq_leaves_what_was_pruned_at_zero():
    _, kernel, hessian = problem()
    pruned, kept = sparsegpt(kernel, hessian, 0.5)
    ours = np.asarray(dequantize(gptq(pruned, hessian, "int4", symmetric=False, mask=kept)))
    assert np.all(ours[~np.asarray(kept)] == 0)
    without = np.asarray(dequantize(gptq(pruned, hessian, "int4", symmetric=False)))
    assert np.any(without[~np.asarray(kept)] != 0)


def torch_sweep(torch, weights, hessian, block, mask_of, round_column):
    """SparseGPT's and GPTQ's loop over columns as in their papers: weights ``(out, in)``."""
    weights, hessian = weights.clone(), hessian.clone()
    columns = weights.shape[1]
    hessian[range(columns), range(columns)] += 0.01 * torch.mean(torch.diag(hessian))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    factor = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        own, upper = weights[:, start:end].clone(), factor[start:end, start:end]
        errors = torch.zeros_like(own)
        mask = None if mask_of is None else mask_of(own, torch.diag(upper))
        for i in range(end - start):
            column = own[:, i]
            new = round_column(column, start + i, own, None if mask is None else mask[:, i])
            error = (column - new) / upper[i, i]
            own[:, i:] -= error[:, None] @ upper[i, i:][None]
            own[:, i], errors[:, i] = new, error
        weights[:, start:end] = own
        weights[:, end:] -= errors @ factor[start:end, end:]
    return weights


@pytest.mark.oracle
@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_sparsegpt_is_its_algorithm_in_torch(pattern):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    _, kernel, hessian = problem(32, 24, 256)

    def mask_of(own, diagonal):
        scores = own**2 / diagonal[None] ** 2
        if pattern:  # of each output the smallest of the block, which is one pattern
            places = torch.topk(scores, pattern[1] - pattern[0], dim=1, largest=False)[1]
            return torch.zeros_like(own, dtype=torch.bool).scatter_(1, places, True)
        threshold = torch.sort(scores.flatten())[0][own.numel() // 2]
        return scores < threshold

    expected = torch_sweep(
        torch, torch.tensor(kernel.T.copy()), torch.tensor(hessian), 4 if pattern else 16, mask_of,
        lambda column, i, own, mask: torch.where(mask, 0.0, column),
    )  # fmt: skip
    new, _ = sparsegpt(kernel, hessian, 0.5, pattern=pattern, block=16)
    np.testing.assert_array_equal(np.asarray(new) == 0, expected.numpy().T == 0)
    np.testing.assert_allclose(new, expected.numpy().T, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("group", ["channel", 8])
def test_gptq_is_its_algorithm_in_torch(group):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    _, kernel, hessian = problem(32, 24, 256)
    grid = None

    def grid_of(weights):
        low, high = weights.amin(dim=1).clamp(max=0), weights.amax(dim=1).clamp(min=0)
        scale = (high - low) / 15
        return scale, torch.round(-8 - low / scale)

    def round_column(column, i, own, mask):
        nonlocal grid
        if group != "channel" and i % group == 0:
            grid = grid_of(own)
        scale, zero = grid or grid_of(torch.tensor(kernel.T.copy()))
        return scale * (torch.clamp(torch.round(column / scale) + zero, -8, 7) - zero)

    block = 16 if group == "channel" else group
    expected = torch_sweep(torch, torch.tensor(kernel.T.copy()), torch.tensor(hessian), block, None, round_column)
    ours = dequantize(gptq(kernel, hessian, "int4", symmetric=False, group=group, block=16))
    # One weight between two codes may go the other way, and those after it with it.
    assert np.mean(np.abs(ours - expected.numpy().T) > 1e-3) < 0.02


def test_both_run_compiled_and_for_a_stack_of_layers():
    _, kernel, hessian = problem()
    stack = jax.jit(jax.vmap(lambda k, h: sparsegpt(k, h, 0.5)[0]))(np.stack([kernel] * 2), np.stack([hessian] * 2))
    np.testing.assert_allclose(stack[1], sparsegpt(kernel, hessian, 0.5)[0], atol=1e-5)
