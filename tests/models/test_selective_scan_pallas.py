"""The kernel in interpret mode, against the oracles of the plain scan; no accelerator is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.scan_oracles import associative, recurrence, scan_inputs
from zsml_jax.models.selective_scan_pallas import selective_scan_pallas


def run(inputs, chunk=4, block=2):
    return selective_scan_pallas(**inputs, chunk=chunk, block=block, interpret=True)


@pytest.mark.parametrize(("length", "chunk", "block"), [(12, 4, 3), (11, 4, 2), (3, 8, 128), (1, 1, 1)])
def test_outputs_and_state_equal_the_recurrence_for_any_chunk_and_block(length, chunk, block):
    inputs = scan_inputs(length=length)
    y, state = recurrence(**inputs)
    out = run(inputs, chunk, block)
    np.testing.assert_allclose(out.y, y, atol=2e-6)
    np.testing.assert_allclose(out.state, state, atol=2e-6)


def test_gradients_of_every_argument_equal_those_of_the_naive_associative_scan():
    inputs = jax.tree.map(jnp.asarray, scan_inputs())
    rng = np.random.default_rng(1)
    y_bar, state_bar = rng.normal(size=inputs["x"].shape), rng.normal(size=inputs["initial"].shape)
    loss = lambda out: (out[0] * y_bar).sum() + (out[1] * state_bar).sum()
    ours = jax.jit(jax.grad(lambda inputs: loss(run(inputs))))(inputs)
    naive = jax.jit(jax.grad(lambda inputs: loss(associative(**inputs))))(inputs)
    for name in inputs:
        np.testing.assert_allclose(ours[name], naive[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_the_state_is_float32_for_bfloat16_inputs():
    inputs = {k: jnp.asarray(v, jnp.bfloat16) for k, v in scan_inputs(length=40, seed=3).items()}
    out = run(inputs, 8)
    assert (out.y.dtype, out.state.dtype) == (jnp.bfloat16, jnp.float32)
    _, state = recurrence(**{k: np.asarray(v, np.float64) for k, v in inputs.items()})
    np.testing.assert_allclose(out.state, state, atol=1e-5)


def test_padding_with_steps_of_size_zero_leaves_the_state_and_vmap_equals_a_loop():
    many = [scan_inputs(length=6, seed=seed) for seed in range(2)]
    is_token = np.array([0, 0, 1, 1, 1, 0], np.float32)[:, None]
    many = [inputs | {"delta": inputs["delta"] * is_token} for inputs in many]
    out = jax.jit(jax.vmap(run))(jax.tree.map(lambda *xs: np.stack(xs), *many))
    for i, inputs in enumerate(many):
        cut = {k: v[:, 2:5] if k in ("x", "delta", "b", "c") else v for k, v in inputs.items()}
        y, state = recurrence(**cut)
        np.testing.assert_allclose(out.y[i, :, 2:5], y, atol=2e-6)
        np.testing.assert_allclose(out.state[i], state, atol=2e-6)


@pytest.mark.usefixtures("unchecked_types")
def test_blocks_that_do_not_divide_the_channels_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="block must divide the 6 channels, got 4"):
        run(scan_inputs(), block=4)
    with pytest.raises(ValueError, match=r"skip must be \(6,\)"):
        run(scan_inputs() | {"skip": np.zeros(4)})
