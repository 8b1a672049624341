"""Exactly the smallest, against a stable sort."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from zsml_jax.compression.selection import order_bits, smallest, smallest_of_each

SELECT = jax.jit(lambda scores, count, axes: smallest(scores, count, axes=axes), static_argnums=2)


def by_stable_sort(scores, count):
    """The first ``count`` of a stable sort of everything."""
    flat = np.concatenate([np.ravel(score) for score in scores])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(flat, kind="stable")[:count]] = True
    return np.split(mask, np.cumsum([score.size for score in scores])[:-1])


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, (3, 5), elements=st.floats(-2, 2, width=16)),
    hnp.arrays(np.float32, (4,), elements=st.sampled_from([0.0, -0.0, 1.0, -1.0, 3e38])),
    st.integers(0, 19),
)
def test_the_smallest_are_the_first_of_a_stable_sort_whatever_is_equal(first, second, count):
    masks = SELECT([order_bits(first), order_bits(second)], count, None)
    magnitudes = [np.abs(first), np.abs(second)]
    assert sum(int(mask.sum()) for mask in masks) == count
    for ours, expected in zip(masks, by_stable_sort(magnitudes, count), strict=True):
        np.testing.assert_array_equal(np.ravel(ours), expected)


@pytest.mark.parametrize("axes", [-2, -1, (-2, -1)])
def test_each_slice_has_its_own_smallest(axes):
    scores = np.random.default_rng(0).integers(0, 6, (3, 4, 5)).astype(np.uint32)
    (mask,) = SELECT([scores], 3, axes)
    slices = {-2: "lio->loi", -1: "lio->lio", (-2, -1): "lio->lio"}[axes]
    length = {-2: 4, -1: 5, (-2, -1): 20}[axes]
    rows, masks = (np.einsum(slices, x).reshape(-1, length) for x in (scores, np.asarray(mask)))
    for row, own in zip(rows, masks, strict=True):
        np.testing.assert_array_equal(own, by_stable_sort([row], 3)[0])


def test_of_equal_scores_in_a_pattern_the_first_go():
    scores = np.array([[1, 1, 1, 1, 4, 2, 2, 9]], np.float32).T
    assert smallest_of_each(scores, 2, 4)[:, 0].tolist() == [True, True, False, False, False, True, True, False]


def test_too_many_scores_to_count_are_refused():
    scores = jax.ShapeDtypeStruct((2**16, 2**16), jnp.uint32)
    with pytest.raises(ValueError, match="scores must be at most 4294967295 to be compared together"):
        jax.eval_shape(lambda scores: smallest([scores, scores], 1), scores)
