"""The oracle is the same network with other parameters: an adapter must equal the merged kernels."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transform.stacks import HIDDEN, LAYERS, WIDTH, Numbered, Scanned, apply_of, numbered_params, random_params
from zsml_jax import transform

RANK = 2


def low_rank(dense, x, adapter):
    return dense(x) + (x @ adapter["a"]) @ adapter["b"]


def adapters_for(model, seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    arrays = {"a": jax.random.normal(a, (LAYERS, WIDTH, RANK)), "b": jax.random.normal(b, (LAYERS, RANK, HIDDEN))}
    return model.per_site("mlp/up", arrays)


def merged(model, adapters):
    add = lambda kernel, path: kernel + (lambda ab: ab["a"] @ ab["b"])(adapters[path.removesuffix("/kernel")])
    return transform.update(model.params, "**/up/kernel", add)


def test_an_adapter_equals_the_merged_kernels(any_form, x):
    adapters = adapters_for(any_form)
    adapted = transform.intercept(any_form.apply, {"**/up": low_rank}, per_site=adapters)
    expected = any_form.apply(merged(any_form, adapters), x)
    assert np.abs(np.asarray(expected - any_form.apply(any_form.params, x))).max() > 0.1
    np.testing.assert_allclose(adapted(any_form.params, x), expected, atol=1e-5)


def test_a_layer_computed_by_hand():
    module = nn.Dense(2)
    params = {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([0.0, 1.0])}
    apply = transform.intercept(apply_of(module), {"": lambda dense, x: 3 * (x @ dense.kernel) + dense.bias})
    np.testing.assert_array_equal(apply(params, jnp.array([[2.0]])), [[6.0, 13.0]])


def test_the_rule_sees_its_layer(model, x):
    seen = []

    def look(dense, x):
        seen.append((dense.path, dense.kernel.shape, dense.bias.shape, dense.dtype))
        return dense(x)

    transform.intercept(model.apply, {"**/up": look})(model.params, x)
    assert {path for path, *_ in seen} == set(model.paths("mlp/up"))
    assert {rest for _, *rest in map(tuple, seen) for rest in [tuple(rest)]} == {
        ((WIDTH, HIDDEN), (HIDDEN,), jnp.dtype("float32"))
    }


def test_of_several_patterns_the_first_decides(x):
    module = nn.Sequential([nn.Dense(2), nn.Dense(2)])
    params = random_params(module, x)
    zero, one = (lambda dense, x, value=value: jnp.full((2, 2), value) for value in (0.0, 1.0))
    run = lambda rules: transform.intercept(apply_of(module), rules)(params, x)
    np.testing.assert_array_equal(run({"layers_1": one, "**": zero}), np.ones((2, 2)))
    np.testing.assert_array_equal(run({"**": zero, "layers_1": one}), np.zeros((2, 2)))


def test_a_mask_of_layers_reaches_each_layer(model, x):
    mask = jnp.array([1.0, 0.0, 1.0])
    adapters = adapters_for(model)
    rule = lambda dense, x, adapter, on: dense(x) + on * ((x @ adapter["a"]) @ adapter["b"])
    out = transform.intercept(model.apply, {"**/up": rule}, per_site=adapters, per_layer=mask)(model.params, x)
    a = adapters_for(model)
    for i, path in enumerate(model.paths("mlp/up")):
        keep = mask[:, None, None] if model.stacked else mask[i]
        a[path] = {**a[path], "b": keep * a[path]["b"]}
    np.testing.assert_allclose(out, model.apply(merged(model, a), x), atol=1e-5)


def test_a_rule_that_only_calls_the_layer_changes_no_bit(model, x):
    plain = jax.jit(model.apply)(model.params, x)
    same = jax.jit(transform.intercept(model.apply, {"**": lambda dense, x: dense(x)}))(model.params, x)
    np.testing.assert_array_equal(plain, same)


def test_gradients_reach_the_adapters_and_follow_finite_differences(scanned, x, x64):
    to64 = lambda tree: jax.tree.map(lambda a: a.astype(jnp.float64), tree)
    params, x, adapters = to64(scanned.params), to64(x), to64(adapters_for(scanned))
    apply = apply_of(Scanned(dtype="float64"))
    loss = lambda ab: (transform.intercept(apply, {"**/up": low_rank}, per_site=ab)(params, x) ** 2).sum()
    gradient = jax.grad(loss)(adapters)
    chex.assert_trees_all_equal_shapes(gradient, adapters)
    direction = jax.tree.map(lambda a: jax.random.normal(jax.random.key(5), a.shape, a.dtype), adapters)
    moved = lambda h: loss(jax.tree.map(lambda a, d: a + h * d, adapters, direction))
    expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
    dot = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    np.testing.assert_allclose(dot, expected, rtol=1e-7)


def test_gradients_of_scanned_and_rematerialised_layers_agree(x):
    params = random_params(Scanned(), x)

    def gradient(module):
        loss = lambda ab: (
            transform.intercept(apply_of(module), {"**/up": low_rank}, per_site={"layers/mlp/up": ab})(params, x) ** 2
        ).sum()
        arrays = {"a": jnp.ones((LAYERS, WIDTH, RANK)), "b": jnp.ones((LAYERS, RANK, HIDDEN))}
        return jax.grad(loss)(arrays)

    chex.assert_trees_all_close(gradient(Scanned()), gradient(Scanned(remat=True)), rtol=1e-5)


def test_vmap_over_adapters_that_share_a_base_equals_a_loop(model, x):
    trials = [adapters_for(model, seed) for seed in range(5)]
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *trials)
    run = lambda ab: transform.intercept(model.apply, {"**/up": low_rank}, per_site=ab)(model.params, x)
    np.testing.assert_allclose(jax.vmap(run)(stacked), jnp.stack([run(ab) for ab in trials]), atol=1e-5)


def test_new_adapters_do_not_compile_again(model, x):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(params, adapters, x):
        return transform.intercept(model.apply, {"**/up": low_rank}, per_site=adapters)(params, x)

    outputs = [np.asarray(run(model.params, adapters_for(model, seed), x)) for seed in range(3)]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    np.testing.assert_allclose(outputs[2], model.apply(merged(model, adapters_for(model, 2)), x), atol=1e-5)


def test_the_caller_keeps_its_parameters(scanned, x):
    before = jax.tree.structure(scanned.params)
    transform.intercept(scanned.apply, {"**/up": low_rank}, per_site=adapters_for(scanned))(scanned.params, x)
    assert jax.tree.structure(scanned.params) == before


def test_interceptions_nest_in_the_order_in_which_they_are_made(x):
    module = nn.Sequential([nn.Dense(2)])
    params = random_params(module, x)
    double = lambda apply: transform.intercept(apply, {"layers_0": lambda dense, x: 2 * dense(x)})
    add = lambda apply: transform.intercept(apply, {"layers_0": lambda dense, x: dense(x) + 1})
    plain = apply_of(module)(params, x)
    np.testing.assert_allclose(add(double(apply_of(module)))(params, x), 2 * plain + 1, rtol=1e-6)
    np.testing.assert_allclose(double(add(apply_of(module)))(params, x), 2 * (plain + 1), rtol=1e-6)


def test_bfloat16_stays_when_a_rule_computes_in_float32(x):
    module = Scanned(dtype="bfloat16")
    params = random_params(module, x)
    rule = lambda dense, x, adapter: dense(x) + (x.astype(jnp.float32) @ adapter["a"]) @ adapter["b"]
    adapters = {"layers/mlp/up": {"a": jnp.ones((LAYERS, WIDTH, RANK)), "b": jnp.zeros((LAYERS, RANK, HIDDEN))}}
    out = transform.intercept(apply_of(module), {"**/up": rule}, per_site=adapters)(params, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, apply_of(module)(params, x))


def test_two_stacks_of_different_depth_keep_their_arrays_apart(x):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Scanned(name="second")(nn.Dense(WIDTH, name="between")(Scanned(name="first")(x)))

    params = random_params(Two(), x)
    arrays = {"a": jnp.ones((LAYERS, WIDTH, RANK)), "b": jnp.ones((LAYERS, RANK, HIDDEN))}
    adapters = {"second/layers/mlp/up": arrays}
    out = transform.intercept(apply_of(Two()), {"second/**/up": low_rank}, per_site=adapters)(params, x)
    add = lambda kernel, path: kernel + arrays["a"] @ arrays["b"]
    expected = apply_of(Two())(transform.update(params, "second/**/up/kernel", add), x)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_numbered_and_scanned_layers_agree_on_one_parameter_set(x):
    params = random_params(Scanned(), x)
    scale = jnp.array([0.5, 2.0, 1.0])
    run = lambda module, p: transform.intercept(
        apply_of(module), {"**/down": lambda dense, x, s: s * dense(x)}, per_layer=scale
    )(p, x)
    np.testing.assert_allclose(run(Scanned(), params), run(Numbered(), numbered_params(params)), atol=1e-5)


def test_a_pattern_of_something_else_than_a_dense_layer_is_an_error(scanned, x):
    with pytest.raises(ValueError, match="rules: the pattern '\\*\\*/act' matches no Dense layer; nearest: "):
        transform.intercept(scanned.apply, {"**/act": low_rank})(scanned.params, x)


def test_arrays_that_no_rule_uses_are_an_error(scanned, x):
    adapters = {"layers/mlp/up": {}, "layers/mlp/donw": {}}
    with pytest.raises(
        ValueError, match="per_site has arrays for 'layers/mlp/donw', which no pattern .*'layers/mlp/down'"
    ):
        transform.intercept(scanned.apply, {"**/{up,down}": low_rank}, per_site=adapters)(scanned.params, x)


def test_layers_without_arrays_are_an_error(scanned, x):
    adapters = adapters_for(scanned)
    with pytest.raises(
        ValueError, match=r"per_site must have arrays for every site; it has none for \['layers/mlp/down'\]"
    ):
        transform.intercept(scanned.apply, {"**/{up,down}": low_rank}, per_site=adapters)(scanned.params, x)


def test_arrays_without_the_axis_of_the_layers_are_an_error(scanned, x):
    adapters = jax.tree.map(lambda a: a[0], adapters_for(scanned))
    message = r"per_site for 'layers/mlp/up' must have the leading axes \(3,\) \(layers\), got \(4, 2\)"
    with pytest.raises(ValueError, match=message):
        transform.intercept(scanned.apply, {"**/up": low_rank}, per_site=adapters)(scanned.params, x)


def test_a_row_for_each_layer_needs_layers(scanned, x):
    rule = lambda dense, x, row: dense(x) + row
    with pytest.raises(ValueError, match="per_layer: the site 'head' is in no layer"):
        transform.intercept(scanned.apply, {"head": rule}, per_layer=jnp.zeros(3))(scanned.params, x)


def test_a_row_for_each_layer_must_be_one_for_all_layers(model, x):
    rule = lambda dense, x, row: dense(x) + row
    with pytest.raises(
        ValueError, match=r"per_layer for '.*up' must have the leading axes \(3,\) \(layers\), got \(2,\)"
    ):
        transform.intercept(model.apply, {"**/up": rule}, per_layer=jnp.zeros(2))(model.params, x)


def test_a_rule_must_keep_the_shape(scanned, x):
    message = r"rules: the rule at 'layers/mlp/up' must return the shape \(2, 6\), got \(2, 4\)"
    with pytest.raises(ValueError, match=message):
        transform.intercept(scanned.apply, {"**/up": lambda dense, x: x})(scanned.params, x)
