"""The linear head against the affine map that it is."""

import jax
import numpy as np
import pytest

from zsml_jax.models.linear_head import init_linear_head, linear_head


def test_logits_are_those_of_an_affine_map(key):
    head = init_linear_head(5, 3, key=key)
    x = np.random.default_rng(0).normal(size=(2, 4, 5)).astype(np.float32)
    expected = np.einsum("btd,dk->btk", x, head["kernel"]) + np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(linear_head({**head, "bias": np.array([1.0, 2.0, 3.0])}, x), expected, rtol=1e-5)


def test_a_fresh_head_has_no_bias_and_small_numbers_of_its_own_key(key):
    head = init_linear_head(400, 50, key=key)
    assert not np.any(head["bias"])
    assert float(np.std(head["kernel"])) == pytest.approx(0.02, rel=0.03)
    other = init_linear_head(400, 50, key=jax.random.key(1))
    assert not np.array_equal(head["kernel"], other["kernel"])


@pytest.mark.parametrize(("width", "classes", "message"), [(0, 2, "width must be"), (3, 1, "num_classes must be")])
def test_sizes_that_make_no_classifier_are_refused(width, classes, message, key):
    with pytest.raises(ValueError, match=message):
        init_linear_head(width, classes, key=key)
