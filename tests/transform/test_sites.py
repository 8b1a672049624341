import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.transform.stacks import HIDDEN, LAYERS, WIDTH, Held, Layer, Scanned, apply_of, random_params
from zsml_jax import transform
from zsml_jax.models.bert import Bert, BertConfig

BERT = BertConfig(vocab_size=11, width=4, num_layers=2, num_heads=2, mlp_width=6, max_positions=8)


def test_sites_are_listed_in_the_order_of_the_calls_with_the_shapes_of_one_layer(model, x):
    found = transform.sites(model.apply, model.params, x)
    names = ["", "mlp", "mlp/up", "mlp/act", "mlp/down"]
    layers = [path if name else path[:-1] for i in model.paths("") for name in names for path in [i + name]]
    assert list(found) == ["", *layers, "head"]
    up = found[model.paths("mlp/up")[-1]]
    assert (up.module, up.is_dense, up.input.shape, up.output.shape) == ("Dense", True, (2, WIDTH), (2, HIDDEN))
    assert {name: leaf.shape for name, leaf in up.params.items()} == {"kernel": (WIDTH, HIDDEN), "bias": (HIDDEN,)}
    for site in found.values():
        assert site.stack == ((LAYERS,) if model.stacked and site.path.startswith("layers") else ())
    assert (up.num_layers, up.layer) == (LAYERS, None if model.stacked else LAYERS - 1)
    assert found["head"].num_layers is None
    # Without parameters of its own the activation is as deep in the stack as the module around it.
    assert found[model.paths("mlp/act")[0]].stack == up.stack


def test_nothing_is_computed_and_shapes_suffice(scanned, x):
    abstract = jax.eval_shape(lambda: scanned.params)
    assert transform.sites(scanned.apply, abstract, jax.ShapeDtypeStruct(x.shape, x.dtype)) == transform.sites(
        scanned.apply, scanned.params, x
    )


def test_sites_of_a_bert():
    module = Bert(BERT)
    tokens = jax.ShapeDtypeStruct((3, 5), jnp.int32)
    params = jax.eval_shape(module.init, jax.random.key(0), tokens)["params"]
    found = transform.sites(apply_of(module), params, tokens)
    dense = [path for path, site in found.items() if site.is_dense]
    names = ["attention/query", "attention/key", "attention/value", "attention/out", "mlp/up", "mlp/down"]
    assert dense == [f"layer_{i}/{name}" for i in range(2) for name in names] + ["pooler"]
    assert found["layer_1/mlp/down"].output.shape == (3, 5, 4)


def test_static_arguments_stay_static(x):
    class Switch(nn.Module):
        @nn.compact
        def __call__(self, x, *, on):
            return nn.Dense(2, name="on" if on else "off")(x)

    params = Switch().init(jax.random.key(0), x, on=True)["params"]
    assert "on" in transform.sites(apply_of(Switch()), params, x, on=True)


def test_an_output_that_is_no_array_does_not_disturb(x):
    class Named(nn.Module):
        def __call__(self, x):
            return x, "name"

    assert transform.sites(apply_of(Named()), {}, x)[""].output[1] == "name"


def test_a_call_of_the_parent_class_is_no_site_of_its_own(x):
    class Doubled(nn.Dense):
        def __call__(self, x):
            return 2 * super().__call__(x)

    module = nn.Sequential([Doubled(3)])
    params = random_params(module, x)
    shifted = transform.edit(apply_of(module), "layers_0", lambda y: y + 1)
    assert jnp.allclose(shifted(params, x), apply_of(module)(params, x) + 1)


def test_a_stack_that_is_a_field_is_found(x):
    layers = nn.scan(Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=LAYERS)
    module = Held(layers())
    assert transform.sites(apply_of(module), random_params(module, x), x)["layers/mlp"].stack == (LAYERS,)


def test_a_jitted_apply_function_is_refused(scanned, x):
    with pytest.raises(ValueError, match="apply_fn must not be jitted itself"):
        transform.sites(jax.jit(scanned.apply), scanned.params, x)


def test_an_apply_function_without_a_module_is_refused(x):
    with pytest.raises(ValueError, match="apply_fn must run a Linen module"):
        transform.sites(lambda params, x: x, {}, x)


def test_an_apply_function_that_changes_the_tree_is_refused(scanned, x):
    with pytest.raises(ValueError, match="apply_fn must give its params to the Linen module as they are"):
        transform.sites(lambda params, x: scanned.apply(params["inner"], x), {"inner": scanned.params}, x)


def test_params_must_be_a_dict(scanned, x, unchecked_types):
    with pytest.raises(ValueError, match="params must be a nested dict of parameters, got list"):
        transform.sites(scanned.apply, [1], x)


def test_apply_functions_compiled_inside_are_noticed(x):
    module = Scanned()
    params = random_params(module, x)
    inner = jax.jit(lambda x: module.apply({"params": params}, x))
    inner(x)
    with pytest.raises(ValueError, match="must run a Linen module, and not inside a jitted function"):
        transform.sites(lambda params, x: inner(x), params, x)
