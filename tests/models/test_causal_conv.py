import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models.causal_conv import causal_conv


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, KERNEL, BIAS, PAST = draw(3, 7, 5), draw(4, 5, seed=1), draw(5, seed=2), draw(3, 3, 5, seed=3)


def by_numpy(x, past):
    """numpy's own convolution of each row and channel; its kernels run backwards."""
    full = np.concatenate([past, x], axis=1).astype(np.float64)
    channel = lambda row, d: np.convolve(row[:, d], KERNEL[::-1, d], mode="valid") + BIAS[d]
    return np.stack([np.stack([channel(row, d) for d in range(5)], axis=-1) for row in full])


@pytest.mark.parametrize("past", [None, PAST])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_the_convolution_equals_numpy_s_and_the_window_holds_the_last_inputs(past, length):
    x = X[:, :length]
    out = causal_conv(x, KERNEL, BIAS, past=past)
    before = np.zeros_like(PAST) if past is None else past
    np.testing.assert_allclose(out.y, by_numpy(x, before), atol=1e-5)
    np.testing.assert_array_equal(out.window, np.concatenate([before, x], axis=1)[:, -3:])


@pytest.mark.parametrize("past", [None, PAST])
def test_padding_on_either_side_changes_neither_tokens_nor_window(past):
    is_token = np.array([[0, 0, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0, 0], [0] * 7], bool)
    out = causal_conv(X, KERNEL, BIAS, past=past, is_token=is_token)
    for row in range(2):
        cut = None if past is None else past[row : row + 1]
        alone = causal_conv(X[row : row + 1, is_token[row]], KERNEL, BIAS, past=cut)
        np.testing.assert_allclose(out.y[row, is_token[row]], alone.y[0], atol=1e-6)
        np.testing.assert_array_equal(out.window[row], alone.window[0])
    np.testing.assert_array_equal(out.window[2], 0 if past is None else past[2])


def test_bfloat16_inputs_are_summed_in_float32():
    x, kernel = (jnp.asarray(value, jnp.bfloat16) for value in (X, KERNEL))
    out = causal_conv(x, kernel)
    exact = causal_conv(x.astype(jnp.float32), kernel.astype(jnp.float32)).y
    assert out.y.dtype == out.window.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.y, exact.astype(jnp.bfloat16))


def test_gradients_agree_with_jax_s_own_convolution():
    def by_lax(x, kernel):
        kernel_KxIxO = kernel[:, None]
        dims = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(
            x, kernel_KxIxO, (1,), [(3, 0)], dimension_numbers=dims, feature_group_count=5
        )

    loss = lambda conv: jax.grad(lambda x, kernel: (conv(x, kernel) ** 2).sum(), argnums=(0, 1))(X, KERNEL)
    for ours, theirs in zip(loss(lambda x, kernel: causal_conv(x, kernel).y), loss(by_lax), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": KERNEL[:, :2]}, "kernel must have 5 channels"),
        ({"past": PAST[:, :2]}, r"past must be \(3, 3, 5\), got \(3, 2, 5\)"),
        ({"is_token": np.ones((3, 2), bool)}, r"is_token must be \(3, 7\), got \(3, 2\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        causal_conv(**({"x": X, "kernel": KERNEL} | changes))
