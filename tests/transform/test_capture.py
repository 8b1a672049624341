"""The oracle is Linen's own ``capture_intermediates``."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx import bridge

from tests.transform.stacks import HIDDEN, LAYERS, OPEN, WIDTH, Held, Layer, Scanned, apply_of, random_params
from tests.transform.test_sites import BERT
from zsml_jax import transform
from zsml_jax.models.bert import Bert


def test_captured_values_are_those_of_linen_in_a_bert():
    module = Bert(BERT)
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
    params = random_params(module, tokens)
    linen = lambda params: module.apply(
        {"params": params}, tokens, capture_intermediates=True, mutable=["intermediates"]
    )
    plain, state = jax.jit(linen)(params)
    output, captured = jax.jit(transform.capture(apply_of(module), ["layer_*/mlp", "**/query", "layer_*"]))(
        params, tokens
    )
    names = ["", "/attention/query", "/mlp"]
    assert list(captured) == [f"layer_{i}{name}" for i in range(2) for name in names]
    for path, value in captured.items():
        node = state["intermediates"]
        for name in path.split("/"):
            node = node[name]
        np.testing.assert_allclose(value, node["__call__"][0], atol=1e-6)
    chex.assert_trees_all_close(output, plain, atol=1e-6)


def test_captured_values_are_those_of_linen_in_a_scanned_stack(scanned, x):
    module = Scanned()
    _, state = module.apply({"params": scanned.params}, x, capture_intermediates=True, mutable=["intermediates"])
    output, captured = transform.capture(scanned.apply, ["layers/mlp/**", "head"])(scanned.params, x)
    mlp = state["intermediates"]["layers"]["mlp"]
    assert captured["layers/mlp/up"].shape == (LAYERS, 2, HIDDEN)
    np.testing.assert_array_equal(captured["layers/mlp/up"], mlp["up"]["__call__"][0])
    np.testing.assert_array_equal(captured["layers/mlp/act"], mlp["act"]["__call__"][0])
    np.testing.assert_array_equal(captured["layers/mlp"], mlp["__call__"][0])
    np.testing.assert_array_equal(captured["head"], output)


def test_every_form_of_the_network_gives_the_same_values(any_form, scanned, x):
    run = lambda m, of: m.stack(transform.capture(m.apply, "**/mlp/down", of=of)(m.params, x)[1], "mlp/down")
    assert run(any_form, "output").shape == (LAYERS, 2, WIDTH)
    assert run(any_form, "input").shape == (LAYERS, 2, HIDDEN)
    for of in ("output", "input"):
        np.testing.assert_allclose(run(any_form, of), run(scanned, of), atol=1e-5)


def test_the_input_of_a_layer_is_what_its_kernel_is_multiplied_with(model, x):
    apply = transform.capture(transform.capture(model.apply, "**/down", of="input"), "**/down")
    (_, inputs), outputs = apply(model.params, x)
    kernels = transform.select(model.params, "**/down/*")
    for path in model.paths("mlp/down"):
        product = inputs[path] @ kernels[f"{path}/kernel"] + jnp.expand_dims(kernels[f"{path}/bias"], -2)
        np.testing.assert_allclose(outputs[path], product, atol=1e-5)


def test_only_what_is_asked_for_leaves_the_program(scanned, x):
    last = jnp.array(1)
    full = transform.capture(scanned.apply, "layers/mlp/up")
    part = transform.capture(scanned.apply, "layers/mlp/up", lambda h: {"last": h[last], "gram": h.T @ h})
    values = full(scanned.params, x)[1]["layers/mlp/up"]
    few = jax.jit(part)(scanned.params, x)[1]["layers/mlp/up"]
    np.testing.assert_allclose(few["last"], values[:, 1], atol=1e-5)
    np.testing.assert_allclose(few["gram"], jnp.einsum("lni,lnj->lij", values, values), atol=1e-5)


def test_memory_does_not_hold_the_positions_that_are_not_asked_for():
    length = 512
    x = jax.ShapeDtypeStruct((length, WIDTH), jnp.float32)
    params = jax.eval_shape(Scanned().init, jax.random.key(0), x)["params"]
    run = transform.capture(apply_of(Scanned()), "layers/mlp/up", lambda h: h[-1])
    memory = jax.jit(run).lower(params, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < LAYERS * length * HIDDEN * 4


def test_a_capture_after_an_edit_sees_edited_values(model, x):
    edited = transform.edit(model.apply, "**/mlp", lambda h, v: h + v, per_layer=jnp.ones((LAYERS, WIDTH)))
    first = lambda apply: model.stack(transform.capture(apply, "**/mlp")(model.params, x)[1], "mlp")[0]
    # What goes into the first layer is not edited, so there the two differ by the vector alone.
    np.testing.assert_allclose(first(edited), first(model.apply) + 1, atol=1e-5)


def test_a_capture_inside_an_edit_of_the_same_site_sees_the_value_before_it(scanned, x):
    captured = transform.capture(scanned.apply, "head")
    output, values = transform.edit(captured, "head", lambda y: y + 1)(scanned.params, x)
    np.testing.assert_allclose(output, values["head"] + 1, rtol=1e-6)


def test_captures_nested_through_a_function_stay_apart(scanned, x):
    inner = transform.capture(scanned.apply, "layers/mlp", lambda h: h + 100)
    between = lambda params, x: inner(params, x)
    (output, low), high = transform.capture(between, "layers/mlp")(scanned.params, x)
    np.testing.assert_allclose(low["layers/mlp"], high["layers/mlp"] + 100, rtol=1e-6)
    np.testing.assert_allclose(output, scanned.apply(scanned.params, x), rtol=1e-6)


def test_later_calls_of_a_shared_module_have_a_number(x):
    class Shared(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.remat(Layer)(name="layer")
            for _ in range(3):
                x, _ = layer(x, None)
            return x

    params = random_params(Shared(), x)
    output, captured = transform.capture(apply_of(Shared()), "layer", lambda out: out[0])(params, x)
    assert list(captured) == ["layer", "layer#1", "layer#2"]
    step = lambda x: Layer().apply({"params": params["layer"]}, x, None)[0]
    np.testing.assert_allclose(captured["layer#1"], step(step(x)), atol=1e-5)
    np.testing.assert_array_equal(captured["layer#2"], output)


@pytest.mark.parametrize("kind", ["setup", "field"])
def test_stacks_made_outside_of_the_call_let_values_out(kind, x):
    stack = nn.scan(Layer, variable_axes=OPEN, split_rngs={"params": True}, length=LAYERS)

    class Setup(nn.Module):
        def setup(self):
            self.layers = stack()

        def __call__(self, x):
            return self.layers(x, None)[0]

    module = Setup() if kind == "setup" else Held(stack())
    _, captured = transform.capture(apply_of(module), "layers/mlp")(random_params(module, x), x)
    assert captured["layers/mlp"].shape == (LAYERS, 2, WIDTH)


def test_gradients_flow_through_captured_values(scanned, x):
    total = lambda params: transform.capture(scanned.apply, "layers/mlp")(params, x)[1]["layers/mlp"].sum()
    gradient = jax.grad(total)(scanned.params)
    np.testing.assert_array_equal(gradient["head"]["kernel"], np.zeros((WIDTH, 2)))
    # The last layer's output bias meets the sum once for each row, and nothing after it is summed.
    np.testing.assert_allclose(gradient["layers"]["mlp"]["down"]["bias"][-1], np.full(WIDTH, 2.0), rtol=1e-6)


def test_vmap_equals_a_loop(model, x):
    run = lambda row: transform.capture(model.apply, "**/mlp")(model.params, row[None])[1]
    chex.assert_trees_all_close(
        jax.vmap(run)(x), jax.tree.map(lambda *rows: jnp.stack(rows), *[run(row) for row in x]), atol=1e-5
    )


def test_updated_collections_of_the_model_are_returned_as_before(x):
    class Normed(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm(use_running_average=False, name="norm")(nn.Dense(3, name="up")(x))

    module = Normed()
    variables = module.init(jax.random.key(0), x)

    def apply(params, x):
        stats = {"batch_stats": variables["batch_stats"]}
        return module.apply({"params": params, **stats}, x, mutable=["batch_stats"])

    output, captured = transform.capture(apply, "up")(variables["params"], x)
    chex.assert_trees_all_equal(output, apply(variables["params"], x))
    assert captured["up"].shape == (2, 3)


def test_dropout_draws_the_same_numbers(x):
    module = nn.Sequential([nn.Dense(32), nn.Dropout(0.5, deterministic=False)])
    params = random_params(module, x)
    apply = lambda params, x, key: module.apply({"params": params}, x, rngs={"dropout": key})
    output, _ = transform.capture(apply, "layers_0")(params, x, jax.random.key(3))
    np.testing.assert_array_equal(output, apply(params, x, jax.random.key(3)))


def test_a_stack_that_lets_no_values_out_is_an_error_that_says_what_to_declare(x):
    module = Scanned(is_open=False)
    params = random_params(module, x)
    with pytest.raises(ValueError, match=r"'layers/mlp' is in scanned layers.*variable_axes=\{.params.: 0, .intermedi"):
        transform.capture(apply_of(module), "layers/mlp")(params, x)
    # Arrays reach the layers all the same.
    vectors = jnp.ones((LAYERS, WIDTH))
    edit = lambda m: transform.edit(apply_of(m), "layers/mlp", lambda h, v: h + v, per_layer=vectors)(params, x)
    np.testing.assert_array_equal(edit(module), edit(Scanned()))


def test_bfloat16_values_stay_bfloat16(x):
    module = Scanned(dtype="bfloat16")
    _, captured = transform.capture(apply_of(module), "layers/mlp")(random_params(module, x), x)
    assert captured["layers/mlp"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_a_model_of_the_zoo_runs_in_nnx_with_the_same_outputs():
    module = Bert(BERT)
    tokens = jnp.array([[1, 2, 3], [4, 5, 6]])
    params = random_params(module, tokens)
    wrapped = bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(tokens)
    state = nnx.state(wrapped, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    nnx.update(wrapped, state)
    np.testing.assert_allclose(wrapped(tokens).last, jax.jit(apply_of(module))(params, tokens).last, atol=1e-6)
