"""The oracle of an added vector is a bias; of a replaced input, the model called with that input."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transform.stacks import HIDDEN, LAYERS, WIDTH, Scanned, apply_of, random_params
from tests.transform.test_sites import BERT
from zsml_jax import transform
from zsml_jax.models.bert import Bert

VECTORS = jnp.arange(LAYERS * WIDTH, dtype=jnp.float32).reshape(LAYERS, WIDTH) / 10
add = lambda x, vector: x + vector


def test_an_added_vector_equals_a_bias(any_form, x):
    steered = transform.edit(any_form.apply, "**/mlp/down", add, per_layer=VECTORS)
    by_path = any_form.per_site("mlp/down", VECTORS)
    biased = transform.update(
        any_form.params, "**/down/bias", lambda bias, path: bias + by_path[path.removesuffix("/bias")]
    )
    np.testing.assert_allclose(steered(any_form.params, x), any_form.apply(biased, x), atol=1e-5)
    same = transform.edit(any_form.apply, "**/mlp", add, per_site=any_form.per_site("mlp", VECTORS))
    np.testing.assert_allclose(same(any_form.params, x), any_form.apply(biased, x), atol=1e-5)


def test_site_arrays_come_before_those_of_the_layer(model, x):
    twice = transform.edit(
        model.apply,
        "**/mlp",
        lambda x, site, layer: x + 2 * site - layer,
        per_site=model.per_site("mlp", VECTORS),
        per_layer=VECTORS,
    )
    once = transform.edit(model.apply, "**/mlp", add, per_layer=VECTORS)
    np.testing.assert_allclose(twice(model.params, x), once(model.params, x), atol=1e-5)


def test_a_submodule_without_parameters_can_be_edited_in_each_layer(model, x):
    off = jnp.array([1.0, 0.0, 1.0])
    silent = transform.edit(model.apply, "**/act", lambda h, on: on * h, per_layer=off)
    mask = off[:, None, None]
    by_path = model.per_site("mlp/down", mask)
    zeroed = transform.update(
        model.params, "**/down/kernel", lambda kernel, path: kernel * by_path[path.removesuffix("/kernel")]
    )
    np.testing.assert_allclose(silent(model.params, x), model.apply(zeroed, x), atol=1e-5)


def test_an_edited_input_is_what_the_submodule_gets():
    module = nn.Sequential([nn.Dense(2, use_bias=False), nn.Dense(1, use_bias=False)])
    params = {"layers_0": {"kernel": jnp.eye(2)}, "layers_1": {"kernel": jnp.array([[1.0], [10.0]])}}
    edited = transform.edit(apply_of(module), "layers_1", lambda h: h + jnp.array([0.0, 1.0]), of="input")
    np.testing.assert_array_equal(edited(params, jnp.array([[2.0, 3.0]])), [[42.0]])


def test_each_row_and_position_of_a_batch_is_edited_by_its_own_gate():
    module = Bert(BERT)
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
    params = random_params(module, tokens)
    gate = jnp.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    last = BERT.num_layers - 1
    edit = lambda h, vector: h + gate[..., None] * vector
    vectors = jnp.ones((BERT.num_layers, BERT.width)).at[:last].set(0).at[last, 0].set(5.0)
    plain = jax.jit(apply_of(module))(params, tokens).last
    steered = jax.jit(transform.edit(apply_of(module), "layer_*/mlp", edit, per_layer=vectors))(params, tokens).last
    changed = np.abs(np.asarray(steered - plain)).max(-1) > 1e-3
    np.testing.assert_array_equal(changed, np.asarray(gate, bool))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("remat", [False, True])
def test_strength_zero_changes_no_bit(dtype, remat, x):
    params = random_params(Scanned(), x)
    apply = apply_of(Scanned(dtype=dtype, remat=remat))
    push = lambda strength: transform.edit(
        apply, "layers/mlp", lambda h, v: h.astype(jnp.float32) + strength * v, per_layer=VECTORS
    )
    # Else XLA may skip the rounding to bfloat16 between operations that it fuses, and which it fuses differs.
    exact = {"xla_allow_excess_precision": False}
    plain = jax.jit(apply, compiler_options=exact)(params, x)
    steer = jax.jit(lambda strength: push(strength)(params, x), compiler_options=exact)
    assert steer(1.0).dtype == plain.dtype == dtype
    assert (np.asarray(steer(1.0)) != np.asarray(plain)).any()
    np.testing.assert_array_equal(steer(0.0), plain)
    np.testing.assert_array_equal(transform.edit(apply, "**", lambda value: value)(params, x), apply(params, x))


def test_new_vectors_do_not_compile_again(model, x):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(vectors):
        return transform.edit(model.apply, "**/mlp", add, per_layer=vectors)(model.params, x)

    assert len({np.asarray(run(scale * VECTORS)).tobytes() for scale in (0.0, 1.0, 2.0)}) == 3


def test_vmap_over_vectors_and_rows_equals_a_loop(model, x):
    def run(vectors, row):
        return transform.edit(model.apply, "**/mlp", add, per_layer=vectors)(model.params, row[None])[0]

    many = jnp.stack([VECTORS, 2 * VECTORS])
    np.testing.assert_allclose(
        jax.vmap(run)(many, x), jnp.stack([run(v, row) for v, row in zip(many, x, strict=True)]), atol=1e-5
    )


def test_gradients_of_the_vectors_are_those_of_the_biases(scanned, x):
    steered = lambda vectors: transform.edit(scanned.apply, "**/mlp", add, per_layer=vectors)(scanned.params, x).sum()
    biased = lambda bias: scanned.apply(
        transform.update(scanned.params, "**/down/bias", lambda old, path: bias), x
    ).sum()
    bias = scanned.params["layers"]["mlp"]["down"]["bias"]
    np.testing.assert_allclose(jax.grad(steered)(jnp.zeros_like(bias)), jax.grad(biased)(bias), rtol=1e-5)


def test_arrays_that_fn_closes_over_get_their_gradients(any_form, x):
    def total(strength):
        edit = lambda h, vector: h + strength * vector
        return transform.edit(any_form.apply, "**/mlp", edit, per_layer=VECTORS)(any_form.params, x).sum()

    by_rows = lambda rows: transform.edit(any_form.apply, "**/mlp", add, per_layer=rows)(any_form.params, x).sum()
    expected = jnp.vdot(jax.jit(jax.grad(by_rows))(VECTORS), VECTORS)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(1.0), expected, rtol=1e-4)


def test_an_output_with_several_parts_keeps_its_structure(scanned, x):
    shift = lambda out, vector: (out[0] + vector, out[1])
    by_layer = transform.edit(scanned.apply, "layers", shift, per_layer=VECTORS)(scanned.params, x)
    by_mlp = transform.edit(scanned.apply, "layers/mlp", add, per_layer=VECTORS)(scanned.params, x)
    np.testing.assert_allclose(by_layer, by_mlp, atol=1e-5)


def test_edits_and_interceptions_nest_in_the_order_in_which_they_are_made(x):
    module = nn.Sequential([nn.Dense(2)])
    params = random_params(module, x)
    double = lambda apply: transform.intercept(apply, {"layers_0": lambda dense, x: 2 * dense(x)})
    shift = lambda apply: transform.edit(apply, "layers_0", lambda y: y + 1)
    plain = apply_of(module)(params, x)
    np.testing.assert_allclose(shift(double(apply_of(module)))(params, x), 2 * plain + 1, rtol=1e-6)
    np.testing.assert_allclose(double(shift(apply_of(module)))(params, x), 2 * (plain + 1), rtol=1e-6)


def test_a_function_between_two_transforms_changes_nothing(scanned, x):
    inner = transform.edit(scanned.apply, "layers/mlp", add, per_layer=VECTORS)
    between = lambda params, x: inner(params, x)
    outer = lambda apply: transform.edit(apply, "layers/mlp/down", add, per_layer=2 * VECTORS)
    np.testing.assert_array_equal(outer(between)(scanned.params, x), outer(inner)(scanned.params, x))


def test_nothing_stays_behind_when_the_function_fails(scanned, x):
    def fail(value):
        raise RuntimeError("on purpose")

    before = scanned.apply(scanned.params, x)
    with pytest.raises(RuntimeError, match="on purpose"):
        transform.edit(scanned.apply, "layers/mlp", fail)(scanned.params, x)
    np.testing.assert_array_equal(scanned.apply(scanned.params, x), before)


def test_a_pattern_that_matches_nothing_is_an_error_that_lists_the_nearest(model, x):
    with pytest.raises(ValueError, match=r"sites: the pattern '\*\*/mpl' matches no submodule; nearest: '.*mlp'"):
        transform.edit(model.apply, "**/mpl", lambda h: h)(model.params, x)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda h: h[:1], r"fn must return the shape it got at 'layers/mlp/up', \(2, 6\), got \(1, 6\)"),
        (lambda h: (h, h), "fn must return the structure it got at 'layers/mlp/up'"),
    ],
)
def test_an_edit_must_keep_structure_and_shape(fn, message, scanned, x):
    with pytest.raises(ValueError, match=message):
        transform.edit(scanned.apply, "**/up", fn)(scanned.params, x)


def test_which_value_is_meant_must_be_known(scanned, unchecked_types):
    with pytest.raises(ValueError, match="of must be 'output' or 'input', got 'ouput'"):
        transform.edit(scanned.apply, "**/up", lambda h: h, of="ouput")


def test_a_submodule_that_is_called_by_name_has_no_input(x):
    class Named(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(HIDDEN, name="up")(inputs=x)

    params = random_params(Named(), x)
    with pytest.raises(ValueError, match="'up' is called without a positional argument, so it has no 'input'"):
        transform.edit(apply_of(Named()), "up", lambda h: h, of="input")(params, x)
