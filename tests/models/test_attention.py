import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.models import attention


@pytest.fixture
def qkv(key):
    shapes = [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4)]
    return [jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key, 3), shapes, strict=True)]


def softmax_attention(q, k, v, mask):
    """The definition, in float64 numpy."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(np.where(mask, scores, -np.inf))
    return np.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdims=True), v)


def test_the_cpu_layout_and_the_fused_one_both_follow_the_definition(qkv):
    mask = np.ones((2, 1, 1, 7), bool)
    mask[1, ..., 4:] = False
    expected = softmax_attention(*qkv, mask)
    np.testing.assert_allclose(attention.attend(*qkv, mask=mask), expected, atol=1e-6)
    np.testing.assert_allclose(attention._attend_cpu(*qkv, jnp.asarray(mask)), expected, atol=1e-6)
    np.testing.assert_allclose(attention._attend_fused(*qkv, jnp.asarray(mask)), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("window", [pytest.param(None, marks=pytest.mark.slow), 70])
def test_causal_attention_by_blocks_follows_the_definition(key, window):
    """150 queries are three blocks on CPU; each row has padding, and the scores a bias."""
    shapes = [(2, 150, 4, 3), (2, 150, 2, 3), (2, 150, 2, 3), (1, 4, 150, 150)]
    *qkv, bias = (jax.random.normal(k, shape) for k, shape in zip(jax.random.split(key, 4), shapes, strict=True))
    is_key = np.ones((2, 1, 1, 150), bool)
    is_key[1, ..., 120:] = False
    distance = np.arange(150)[:, None] - np.arange(150)
    allowed = is_key & (distance >= 0) & (distance < (window or 150))
    k, v = (np.repeat(x, 2, axis=2) for x in qkv[1:])
    scores = np.einsum("bthd,bshd->bhts", *(np.asarray(x, np.float64) for x in (qkv[0], k))) / 3**0.5 + bias
    weights = np.exp(np.where(allowed, scores, -np.inf))
    with np.errstate(invalid="ignore"):  # rows of padding whose window holds no key have no weights at all
        expected = np.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdims=True), v)
    is_seen = allowed.any(-1)[:, 0]
    for attend in (attention.attend, attention._attend_fused):
        out = attend(*qkv, mask=jnp.asarray(is_key), bias=bias, is_causal=True, window=window)
        np.testing.assert_allclose(np.asarray(out)[is_seen], expected[is_seen], atol=1e-5)


def test_without_a_mask_every_key_is_seen(qkv):
    np.testing.assert_allclose(attention.attend(*qkv), softmax_attention(*qkv, np.True_), atol=1e-6)


def test_a_mask_may_differ_by_query(qkv):
    mask = np.tril(np.ones((5, 7), bool))[None, None].repeat(2, 0)
    np.testing.assert_allclose(attention.attend(*qkv, mask=mask), softmax_attention(*qkv, mask), atol=1e-6)


def test_a_row_without_any_key_stays_finite_and_so_do_its_gradients(qkv):
    mask = np.zeros((2, 1, 1, 7), bool)
    value, gradients = jax.value_and_grad(lambda *a: attention.attend(*a, mask=mask).sum(), argnums=(0, 1, 2))(*qkv)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def test_gradients_follow_the_fused_ones(qkv):
    mask = jnp.ones((2, 1, 1, 7), bool).at[0, ..., 3:].set(False)
    loss = lambda f: lambda *a: (f(*a) ** 2).sum()
    ours = jax.grad(loss(lambda *a: attention.attend(*a, mask=mask)), argnums=(0, 1, 2))(*qkv)
    peer = jax.grad(loss(lambda *a: jax.nn.dot_product_attention(*a, mask=mask)), argnums=(0, 1, 2))(*qkv)
    for a, b in zip(ours, peer, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_scores_of_bfloat16_inputs_are_float32(qkv):
    # Scores near 100: in bfloat16 their spacing is 0.5, and the weights would be off by tens of percent.
    q, k, v = (x.astype(jnp.bfloat16) for x in (qkv[0] * 50, qkv[1], qkv[2]))
    out = attention.attend(q, k, v)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), softmax_attention(q, k, v, np.True_), atol=0.03)


def test_key_heads_are_shared_by_consecutive_query_heads(qkv, key):
    q = jax.random.normal(key, (2, 5, 6, 4))
    repeated = [np.repeat(np.asarray(x), 2, axis=2) for x in qkv[1:]]
    mask = np.tril(np.ones((5, 7), bool))[None, None]
    expected = softmax_attention(q, *repeated, mask)
    np.testing.assert_allclose(attention.attend(q, *qkv[1:], mask=mask), expected, atol=1e-6)
    np.testing.assert_allclose(attention._attend_fused(q, *qkv[1:], jnp.asarray(mask)), expected, atol=1e-6)


def test_a_scale_of_one_leaves_scores_as_they_are(qkv):
    expected = softmax_attention(qkv[0] * 2, *qkv[1:], np.True_)  # the definition divides by the root of 4
    np.testing.assert_allclose(attention.attend(*qkv, scale=1.0), expected, atol=1e-6)
    np.testing.assert_allclose(attention._attend_fused(*qkv, None, scale=1.0), expected, atol=1e-6)


@pytest.mark.parametrize("window", [None, 1, 2, 9])
def test_causal_attention_and_its_window_equal_the_masked_one(qkv, window):
    distance = np.arange(5)[:, None] - np.arange(7)
    mask = (distance >= 0) & (distance < (window or 99))
    expected = softmax_attention(*qkv, mask)
    options = {"is_causal": True, "window": window}
    np.testing.assert_allclose(attention.attend(*qkv, **options), expected, atol=1e-6)
    np.testing.assert_allclose(attention._attend_fused(*qkv, None, **options), expected, atol=1e-6)


def test_a_mask_and_causality_both_hold(qkv):
    seen = np.ones((2, 1, 1, 7), bool)
    seen[1, ..., 2] = False
    expected = softmax_attention(*qkv, np.tril(np.ones((5, 7), bool)) & seen)
    np.testing.assert_allclose(attention.attend(*qkv, mask=seen, is_causal=True), expected, atol=1e-6)


def test_heads_and_windows_that_do_not_fit_are_refused(qkv, key):
    with pytest.raises(ValueError, match="must divide those of q_BxTxHxD, 4, got 3"):
        attention.attend(jax.random.normal(key, (2, 5, 4, 4)), *qkv[1:])
    with pytest.raises(ValueError, match="window must be at least 1 and come with is_causal, got 2 and False"):
        attention.attend(*qkv, window=2)


def test_flash_kernels_are_left_alone_where_they_cannot_run(key):
    half, full = (jax.random.normal(key, (1, 8, 2, 64), dtype) for dtype in (jnp.bfloat16, jnp.float32))
    assert not attention._runs_in_cudnn(half, half)  # no CUDA backend in the tests
    assert not attention._runs_in_cudnn(full, full)


def test_a_bias_is_added_to_scores_in_both_layouts(qkv, key):
    """Against the definition with the scores' factor folded into the queries."""
    bias = np.asarray(jax.random.normal(key, (1, 3, 5, 7)))
    mask = np.arange(7) < np.array([7, 4])[:, None, None, None]
    q, k, v = (np.asarray(x, np.float64) for x in qkv)
    scores = np.where(mask, np.einsum("bthd,bshd->bhts", q, k) + bias, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = np.einsum("bhts,bshd->bthd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(attention.attend(*qkv, mask=mask, bias=bias, scale=1.0), expected, atol=1e-5)
    fused = attention._attend_fused(*qkv, jnp.asarray(mask), jnp.asarray(bias), scale=1.0)
    np.testing.assert_allclose(fused, expected, atol=1e-5)
