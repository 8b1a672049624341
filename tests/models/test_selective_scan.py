import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.scan_oracles import associative, recurrence, scan_inputs
from zsml_jax.models.selective_scan import selective_scan


def run(inputs, chunk=4):
    return selective_scan(**inputs, chunk=chunk)


@pytest.mark.parametrize(("length", "chunk"), [(12, 4), (11, 4), (3, 8), (1, 1), (7, 1), (9, 9)])
def test_outputs_and_state_equal_the_recurrence_whether_or_not_the_chunk_divides_the_length(length, chunk):
    inputs = scan_inputs(length=length)
    y, state = recurrence(**inputs)
    out = run(inputs, chunk)
    np.testing.assert_allclose(out.y, y, atol=2e-6)
    np.testing.assert_allclose(out.state, state, atol=2e-6)


@pytest.mark.parametrize("chunk", [4, 16])
def test_gradients_of_every_argument_equal_those_of_the_naive_associative_scan(chunk):
    inputs = jax.tree.map(jnp.asarray, scan_inputs())
    rng = np.random.default_rng(1)
    y_bar, state_bar = rng.normal(size=inputs["x"].shape), rng.normal(size=inputs["initial"].shape)
    loss = lambda out: (out[0] * y_bar).sum() + (out[1] * state_bar).sum()
    ours = jax.jit(jax.grad(lambda inputs: loss(run(inputs, chunk))))(inputs)
    naive = jax.jit(jax.grad(lambda inputs: loss(associative(**inputs))))(inputs)
    for name in inputs:
        np.testing.assert_allclose(ours[name], naive[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_gradient_can_be_differentiated_again():
    inputs = jax.tree.map(jnp.asarray, scan_inputs(batch=1, length=5, channels=2, states=2))
    norm = lambda scan: jax.grad(lambda a: (jax.grad(lambda a: (scan(a)[0] ** 2).sum())(a) ** 2).sum())
    ours = norm(lambda a: run(inputs | {"a": a}, 2))(inputs["a"])
    naive = norm(lambda a: associative(**(inputs | {"a": a})))(inputs["a"])
    np.testing.assert_allclose(ours, naive, rtol=1e-4)


def test_two_halves_joined_by_the_state_equal_the_whole():
    inputs = scan_inputs(length=10)
    part = lambda window, initial: run(
        {k: v[:, window] if k in ("x", "delta", "b", "c") else v for k, v in inputs.items()} | {"initial": initial}
    )
    whole = run(inputs)
    first = part(slice(0, 7), inputs["initial"])
    second = part(slice(7, 10), first.state)
    np.testing.assert_allclose(np.concatenate([first.y, second.y], axis=1), whole.y, atol=1e-6)
    np.testing.assert_allclose(second.state, whole.state, atol=1e-6)


def test_scans_of_one_step_equal_the_scan():
    inputs = scan_inputs(length=3)
    whole, state = run(inputs), inputs["initial"]
    for t in range(3):
        at_t = {name: inputs[name][:, t : t + 1] for name in ("x", "delta", "b", "c")}
        y, state = run(inputs | at_t | {"initial": state})
        np.testing.assert_allclose(y[:, 0], whole.y[:, t], atol=1e-6)
    np.testing.assert_allclose(state, whole.state, atol=1e-6)


def test_steps_of_size_zero_leave_the_state_and_inputs_of_zero_leave_the_zero_state():
    inputs = scan_inputs(length=6)
    is_token = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]], np.float32)[..., None]
    out = run(inputs | {"delta": inputs["delta"] * is_token})
    for row, kept in enumerate([slice(2, 6), slice(0, 3)]):
        cut = {k: v[row : row + 1, kept] if k in ("x", "delta", "b", "c") else v for k, v in inputs.items()}
        y, state = recurrence(**(cut | {"initial": inputs["initial"][row : row + 1]}))
        np.testing.assert_allclose(out.y[row : row + 1, kept], y, atol=2e-6)
        np.testing.assert_allclose(out.state[row : row + 1], state, atol=2e-6)
    zeros = run(inputs | {"x": 0 * inputs["x"], "initial": 0 * inputs["initial"]})
    assert not np.any(zeros.state) and not np.any(zeros.y)


def test_the_state_is_float32_for_bfloat16_inputs_and_gradients_keep_the_dtypes_of_the_inputs():
    inputs = {k: jnp.asarray(v, jnp.bfloat16) for k, v in scan_inputs(length=40, seed=3).items()}
    out = run(inputs, 8)
    assert (out.y.dtype, out.state.dtype) == (jnp.bfloat16, jnp.float32)
    _, state = recurrence(**{k: np.asarray(v, np.float64) for k, v in inputs.items()})
    np.testing.assert_allclose(out.state, state, atol=1e-5)
    grads = jax.grad(lambda inputs: run(inputs, 8).y.astype(jnp.float32).sum())(inputs)
    assert {grad.dtype for grad in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}


def test_vmap_equals_a_loop_and_jit_equals_eager():
    many = [scan_inputs(seed=seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *many)
    grad = jax.jit(jax.grad(lambda inputs: (run(inputs).y ** 2).sum()))
    out, grads = jax.jit(jax.vmap(run))(stacked), jax.jit(jax.vmap(grad))(stacked)
    for i, inputs in enumerate(many):
        np.testing.assert_allclose(out.y[i], run(inputs).y, atol=2e-6)
        np.testing.assert_allclose(grads["a"][i], grad(inputs)["a"], rtol=1e-4, atol=1e-5)


def test_memory_of_the_gradient_grows_with_the_chunk_and_the_number_of_chunks_not_with_the_length():
    inputs = scan_inputs(batch=1, length=1024, channels=32, states=16)
    one_state = 4 * 32 * 16

    def temporary_bytes(scan):
        loss = lambda x: scan(**(inputs | {"x": x}))[0].sum()
        return jax.jit(jax.grad(loss)).lower(inputs["x"]).compile().memory_analysis().temp_size_in_bytes

    ours = temporary_bytes(lambda **inputs: selective_scan(**inputs, chunk=32))
    naive = temporary_bytes(associative)
    inputs_and_outputs = 8 * 1024 * (2 * 32 + 2 * 16) * 4
    assert ours < 4 * (32 + 32) * one_state + inputs_and_outputs < 2 * 1024 * one_state < naive


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros((2, 11))}, r"x must be \(b, t, d\)"),
        ({"a": np.zeros((5, 4))}, r"a must be \(d, s\) with d = 6, got \(5, 4\)"),
        ({"delta": np.zeros((2, 11, 1))}, r"delta must be \(2, 11, 6\), got \(2, 11, 1\)"),
        ({"b": np.zeros((2, 11, 6))}, r"b must be \(2, 11, 4\), got \(2, 11, 6\)"),
        ({"c": np.zeros((2, 4))}, r"c must be \(2, 11, 4\), got \(2, 4\)"),
        ({"skip": np.zeros(4)}, r"skip must be \(6,\), got \(4,\)"),
        ({"initial": np.zeros((2, 6, 4))}, r"initial must be \(2, 4, 6\), got \(2, 6, 4\)"),
        ({"chunk": 0}, "chunk must be at least 1, got 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**(scan_inputs() | changes))
