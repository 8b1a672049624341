import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.transform import select, update

PARAMS = {"layers": {"up": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}, "head": {"kernel": jnp.ones(2)}}


def test_select_gives_the_parameters_by_path():
    assert list(select(PARAMS, "**/kernel")) == ["layers/up/kernel", "head/kernel"]
    assert select(PARAMS, ["head/*"])["head/kernel"] is PARAMS["head"]["kernel"]


def test_update_changes_what_matches_and_keeps_the_rest_as_it_is():
    deltas = {"layers/up/kernel": jnp.full((2, 3), 0.5)}
    new = update(PARAMS, "layers/**/kernel", lambda kernel, path: kernel + deltas[path])
    np.testing.assert_array_equal(new["layers"]["up"]["kernel"], np.full((2, 3), 1.5))
    assert new["layers"]["up"]["bias"] is PARAMS["layers"]["up"]["bias"]
    assert new["head"]["kernel"] is PARAMS["head"]["kernel"]
    np.testing.assert_array_equal(PARAMS["layers"]["up"]["kernel"], np.ones((2, 3)))


def test_update_may_change_shape_and_type():
    assert update(PARAMS, "head/kernel", lambda kernel, path: (kernel, path))["head"]["kernel"][1] == "head/kernel"


def test_a_pattern_that_matches_no_parameter_is_an_error():
    with pytest.raises(ValueError, match="matches no parameter; nearest: 'layers/up/kernel'"):
        update(PARAMS, "layers/op/kernel", lambda kernel, path: kernel)
