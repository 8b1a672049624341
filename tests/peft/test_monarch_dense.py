"""The Monarch layer against a dense one with the same kernel."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.peft import MonarchDense, monarch
from zsml_jax.peft.monarch import Monarch, MonarchShape

X = np.random.default_rng(0).normal(size=(2, 5, 10)).astype(np.float32)


@pytest.mark.parametrize(("features", "blocks", "rank"), [(12, 2, 2), (7, 3, 2), (10, 1, 4)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_it_computes_what_a_dense_layer_with_its_kernel_does(features, blocks, rank, use_bias, key):
    layer = MonarchDense(features, blocks, rank, use_bias=use_bias)
    params = layer.init(key, X)["params"]
    shape = MonarchShape(10, features, blocks, rank)
    dense = {"kernel": monarch.delta_weight(Monarch(params["first"], params["second"]), shape)}
    if use_bias:
        dense["bias"] = params["bias"] = params["bias"] + 0.5
    expected = nn.Dense(features, use_bias=use_bias).apply({"params": dense}, X)
    np.testing.assert_allclose(layer.apply({"params": params}, X), expected, atol=1e-5)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == shape.parameters + use_bias * features


def test_a_fresh_layer_keeps_the_variance_of_its_input(key):
    x = jax.random.normal(key, (64, 256))
    y = MonarchDense(256, blocks=4, block_rank=8).init_with_output(key, x)[0]
    assert np.var(y) == pytest.approx(1.0, abs=0.15)


def test_it_computes_in_the_dtype_asked_for(key):
    layer = MonarchDense(4, 2, 2, dtype=jnp.bfloat16)
    output, variables = layer.init_with_output(key, X)
    assert output.dtype == jnp.bfloat16 and variables["params"]["first"].dtype == jnp.float32


def test_it_learns_a_product_of_its_own_kind(key):
    """From another start, by plain gradient descent."""
    layer = MonarchDense(6, 2, 2, use_bias=False)
    x = jax.random.normal(key, (64, 10))
    target = layer.init_with_output(jax.random.key(7), x)[0]
    loss = lambda params: jnp.mean((layer.apply({"params": params}, x) - target) ** 2)

    def step(params, _):
        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), value

    _, losses = jax.jit(lambda params: jax.lax.scan(step, params, length=1000))(layer.init(key, x)["params"])
    assert losses[-1] < 1e-4 * losses[0]
