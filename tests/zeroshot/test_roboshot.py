"""The oracle is the paper's algorithm 1, one vector after the other, in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zsml_jax.zeroshot import roboshot
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.subspace import orthonormal_basis


def algorithm_1(x, harmful_basis, helpful_basis):
    """Removes and adds one basis vector (a row) at a time, normalising after each removal, as the paper says."""
    x = x.copy()
    for v in harmful_basis:
        x -= np.outer(x @ v / (v @ v), v)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    for u in helpful_basis:
        x += np.outer(x @ u / (u @ u), u)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def qr_rows(insights):
    return np.linalg.qr(insights.T)[0].T


def head_of(vectors, rng, bias=True):
    k = len(vectors)
    return ClassHead(
        vectors=jnp.asarray(vectors),
        logit_scale=jnp.asarray(20.0, vectors.dtype),
        bias=jnp.asarray(rng.normal(size=k).astype(vectors.dtype) if bias else np.zeros(k, vectors.dtype)),
    )


def concept_differences(rng, n_concepts, d, dtype=np.float32):
    """All pairwise differences of the embeddings of a few concepts, as the paper's PACS and VLCS insights are."""
    concepts = rng.normal(size=(n_concepts, d)).astype(dtype)
    return np.stack([concepts[i] - concepts[j] for i in range(n_concepts) for j in range(i)])


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_closed_form_equals_the_papers_loop_in_float64(x64, rng):
    x, harmful, helpful = rng.normal(size=(50, 64)), rng.normal(size=(10, 64)), rng.normal(size=(6, 64))
    expected = algorithm_1(x, qr_rows(harmful), qr_rows(helpful))
    ours = roboshot.edit_embeddings(x, harmful=harmful, helpful=helpful)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5e-15)
    for only in ({"harmful": harmful}, {"helpful": helpful}):
        none = np.zeros((0, 64))
        expected = algorithm_1(x, qr_rows(only.get("harmful", none).reshape(-1, 64)), none)
        if "helpful" in only:
            expected = algorithm_1(x, none, qr_rows(helpful))
        np.testing.assert_allclose(roboshot.edit_embeddings(x, **only), expected, rtol=0, atol=5e-15)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), m=st.sampled_from([1, 4]), p=st.sampled_from([1, 3]), orthogonal=st.booleans())
def test_an_edited_head_predicts_as_the_old_head_does_on_edited_embeddings(seed, m, p, orthogonal):
    rng = np.random.default_rng(seed)
    x, harmful, helpful = (rng.normal(size=(s, 16)).astype(np.float32) for s in (40, m, p))
    insights = {"harmful": harmful, "helpful": helpful, "orthogonal": orthogonal, "boost": 0.7}
    head = head_of(rng.normal(size=(5, 16)).astype(np.float32), rng)
    edited = roboshot.edit_head(head, **insights)
    logits = head.logits(roboshot.edit_embeddings(x, **insights, renormalize=False))
    np.testing.assert_allclose(edited.logits(x), logits, rtol=1e-4, atol=1e-3)
    assert edited.logit_scale == head.logit_scale
    np.testing.assert_array_equal(edited.bias, head.bias)

    plain = head_of(np.asarray(head.vectors), rng, bias=False)
    logits = plain.logits(roboshot.edit_embeddings(x, **insights))
    top = np.sort(logits, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-3
    predictions = roboshot.edit_head(plain, **insights).predict(x)
    np.testing.assert_array_equal(predictions[clear], logits.argmax(axis=1)[clear])
    assert clear.mean() > 0.9


def test_dependent_insights_remove_exactly_their_span(rng):
    differences = concept_differences(rng, 6, 768)
    assert differences.shape == (15, 768)
    edit = roboshot.fit(harmful=differences)
    assert edit.harmful_dimension == 5
    span = np.linalg.svd(differences.astype(np.float64), full_matrices=False)[2][:5]
    x = rng.normal(size=(20, 768)).astype(np.float32)
    expected = x - x @ span.T @ span
    np.testing.assert_allclose(edit.edit_embeddings(x, renormalize=False), expected, atol=2e-5)


def test_an_unpivoted_qr_would_remove_directions_outside_of_the_span(rng):
    differences = concept_differences(rng, 6, 768)
    span = np.linalg.svd(differences.astype(np.float64), full_matrices=False)[2][:5]
    basis = qr_rows(differences)
    inside = np.linalg.norm(basis @ span.T, axis=1)
    assert (inside < 0.5).sum() == 10
    # What lies outside of the span is still removed by the QR basis of the released code, and not by ours.
    outside = basis[inside < 0.5] - basis[inside < 0.5] @ span.T @ span
    outside /= np.linalg.norm(outside, axis=1, keepdims=True)
    np.testing.assert_allclose(outside - outside @ basis.T @ basis, 0, atol=1e-4)
    kept = roboshot.edit_embeddings(outside.astype(np.float32), harmful=differences)
    np.testing.assert_allclose(kept, outside, atol=1e-4)


@pytest.mark.parametrize(("n_concepts", "rank"), [(5, 4), (9, 8)])
def test_the_rank_tolerance_finds_the_rank_of_vlcs_like_insights(rng, n_concepts, rank):
    insights = concept_differences(rng, n_concepts, 512)
    assert roboshot.fit(helpful=insights).helpful_dimension == rank


def test_more_insights_than_dimensions_remove_everything_and_leave_no_nan(rng):
    x = rng.normal(size=(4, 8)).astype(np.float32)
    edit = roboshot.fit(harmful=rng.normal(size=(20, 8)).astype(np.float32))
    assert edit.harmful_dimension == 8
    np.testing.assert_allclose(edit.edit_embeddings(x, renormalize=False), 0, atol=1e-5)
    first = np.eye(8, dtype=np.float32)[:1]
    np.testing.assert_array_equal(roboshot.edit_embeddings(first, harmful=first), np.zeros((1, 8)))


def test_helpful_insights_orthogonal_to_harmful_ones_bring_nothing_harmful_back(rng):
    x, harmful, helpful = (rng.normal(size=(s, 32)).astype(np.float32) for s in (50, 5, 5))
    helpful[0] = harmful[0] + harmful[1]
    v = np.asarray(orthonormal_basis(harmful))
    mixed = roboshot.edit_embeddings(x, harmful=harmful, helpful=helpful)
    clean = roboshot.edit_embeddings(x, harmful=harmful, helpful=helpful, orthogonal=True)
    assert np.abs(mixed @ v.T).max() > 0.1
    assert np.abs(clean @ v.T).max() < 1e-6
    edit = roboshot.fit(harmful=harmful, helpful=helpful, orthogonal=True)
    assert edit.helpful_dimension == 4
    np.testing.assert_allclose(edit.helpful @ edit.harmful.T, 0, atol=1e-6)


def test_the_length_of_an_insight_does_not_matter(rng):
    x, harmful, helpful = (rng.normal(size=(s, 32)).astype(np.float32) for s in (10, 3, 2))
    scale = np.array([[1e-3], [1.0], [1e4]], np.float32)
    expected = roboshot.edit_embeddings(x, harmful=harmful, helpful=helpful)
    ours = roboshot.edit_embeddings(x, harmful=-scale * harmful, helpful=5 * helpful)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_the_boost_strength_interpolates_from_removal_alone(rng):
    x, harmful, helpful = (rng.normal(size=(s, 32)).astype(np.float32) for s in (10, 3, 2))
    edit = roboshot.fit(harmful=harmful, helpful=helpful)
    none, one, two = (edit.scaled(b).edit_embeddings(x, renormalize=False) for b in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(none, roboshot.edit_embeddings(x, harmful=harmful, renormalize=False), atol=1e-5)
    np.testing.assert_allclose(two - one, one - none, atol=1e-5)


def test_many_problems_map_as_a_loop_would(rng):
    x, harmful, helpful = (rng.normal(size=(3, s, 16)).astype(np.float32) for s in (10, 4, 2))
    harmful[1, 3] = harmful[1, 0] - harmful[1, 1]
    edit = lambda x, v, u: roboshot.edit_embeddings(x, harmful=v, helpful=u)
    expected = [edit(*problem) for problem in zip(x, harmful, helpful, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(edit))(x, harmful, helpful), expected, atol=1e-5)
    heads = jax.vmap(lambda v, u: roboshot.fit(harmful=v, helpful=u))(harmful, helpful)
    np.testing.assert_array_equal(heads.harmful_dimension, [4, 3, 4])


@pytest.mark.slow
@pytest.mark.parametrize("dependent", [False, True])
def test_gradients_match_differences_also_at_equal_singular_values(x64, rng, dependent):
    """Orthonormal insights have equal singular values, where the derivative of the SVD itself is infinite."""
    x, harmful, weights = (
        rng.normal(size=(6, 12)),
        np.linalg.qr(rng.normal(size=(12, 4)))[0].T,
        rng.normal(size=(6, 12)),
    )
    direction = rng.normal(size=harmful.shape)
    if dependent:
        # Perturb along matrices of the same rank, where the projector is smooth.
        mixing = np.vstack([np.eye(4), rng.normal(size=(2, 4))])
        harmful, direction = mixing @ harmful, mixing @ direction
    loss = lambda v: jnp.sum(weights * roboshot.edit_embeddings(x, harmful=v, helpful=v[:2] ** 3))
    if dependent:
        assert roboshot.fit(harmful=harmful).harmful_dimension == 4
    gradient = jax.grad(loss)(harmful)
    assert np.isfinite(gradient).all()
    step = 1e-5
    expected = (loss(harmful + step * direction) - loss(harmful - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.sum(gradient * direction), expected, rtol=1e-6)
    hessian = jax.jvp(jax.grad(loss), (harmful,), (direction,))[1]
    assert np.isfinite(hessian).all()
    if not dependent:
        expected = (jax.grad(loss)(harmful + step * direction) - jax.grad(loss)(harmful - step * direction)) / (
            2 * step
        )
        np.testing.assert_allclose(hessian, expected, atol=1e-5)


def test_half_precision_embeddings_are_edited_in_float32(rng):
    x, harmful = rng.normal(size=(10, 64)).astype(np.float32), rng.normal(size=(3, 64)).astype(np.float32)
    half = jnp.asarray(x, jnp.bfloat16)
    ours = roboshot.edit_embeddings(half, harmful=harmful)
    assert ours.dtype == jnp.float32
    np.testing.assert_allclose(ours, roboshot.edit_embeddings(half.astype(jnp.float32), harmful=harmful), atol=1e-6)


def test_a_second_edit_of_the_same_shape_does_not_compile_again(rng):
    x, harmful = rng.normal(size=(9, 24)).astype(np.float32), rng.normal(size=(3, 24)).astype(np.float32)
    roboshot.edit_embeddings(x, harmful=harmful, helpful=harmful, boost=1.0)
    sizes = roboshot._fit._cache_size(), roboshot._edited._cache_size()
    roboshot.edit_embeddings(2 * x, harmful=x[:3], helpful=harmful, boost=0.5)
    assert (roboshot._fit._cache_size(), roboshot._edited._cache_size()) == sizes


def test_bad_input_is_refused_by_name(unchecked_types, rng):
    x, good = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=(2, 8)).astype(np.float32)
    refused = lambda message: pytest.raises(ValueError, match=message)
    with refused("harmful or helpful must be given; both are None"):
        roboshot.edit_embeddings(x)
    with refused("harmful must hold insights that are not zero; row 1 is"):
        roboshot.edit_embeddings(x, harmful=good * np.float32([[1], [0]]))
    with refused("helpful must be finite"):
        roboshot.edit_embeddings(x, helpful=good * np.nan)
    with refused(r"x must have the dimension 7 of the insights last, got shape \(4, 8\)"):
        roboshot.edit_embeddings(x, harmful=good[:, :7])
    with refused("harmful and helpful must have the same dimension d"):
        roboshot.edit_embeddings(x, harmful=good, helpful=good[:, :7])
    with refused(r"harmful must have shape \(m, d\)"):
        roboshot.edit_embeddings(x, harmful=good[0])
    with refused(r"harmful must have shape \(m, d\) with m >= 1"):
        roboshot.edit_embeddings(x, harmful=good[:0])
    with refused("harmful must hold floats, got dtype int"):
        roboshot.edit_embeddings(x, harmful=np.ones((2, 8), int))
    with refused("x must be finite"):
        roboshot.edit_embeddings(np.full_like(x, np.inf), harmful=good)
    with refused("boost must be a finite number that is not negative, got -1"):
        roboshot.edit_embeddings(x, helpful=good, boost=-1)
    with refused("head.vectors must have the dimension 8"):
        roboshot.edit_head(head_of(good[:, :5], rng), harmful=good)
