"""Features are judged by what float32 makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.weaksup.vote_matrix import checked_features


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_features_whose_sum_overflows_are_finite_all_the_same(dtype):
    x = np.full((3, 784), 0.9 * float(jnp.finfo(dtype if dtype != np.float64 else np.float32).max)).astype(dtype)
    checked = checked_features(x)
    assert checked.dtype == jnp.float32
    np.testing.assert_array_equal(checked, x.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e39])
def test_features_that_float32_cannot_hold_are_refused_by_the_row(value):
    x = np.zeros((10_000, 2))
    x[[9_000, 9_500], 1] = value
    with pytest.raises(ValueError, match="points must be finite in float32; row 9000 is not"):
        checked_features(x, name="points")


def test_traced_features_are_not_judged():
    assert jax.jit(checked_features)(jnp.full((2, 2), jnp.nan)).shape == (2, 2)
