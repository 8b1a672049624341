"""Quantised kernels against their definition, PyTorch's observers, and the models with dequantised parameters."""

import chex
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from zsml_jax import transform
from zsml_jax.models import quantized
from zsml_jax.models.bert import Bert, BertConfig
from zsml_jax.models.decoder import Decoder, DecoderConfig
from zsml_jax.models.generate import generate
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.pretrained import Pretrained
from zsml_jax.models.quantized import NF4, Quantized, dequantize, product, quantize
from zsml_jax.models.rotary import Rotary
from zsml_jax.models.t5 import T5
from zsml_jax.models.t5_config import T5Config

SHAPE = (23, 8, 2, 2, 12, 32)
MODULES = {
    "llama": Decoder(DecoderConfig(*SHAPE, num_kv_heads=1, rotary=Rotary(4))),
    "bert": Bert(BertConfig(*SHAPE)),
    "mamba": Mamba(MambaConfig(23, 8, 2, state_size=3)),
    "t5": T5(T5Config(23, 8, 2, 2, 2, 4, 12)),
}
TOKENS = np.random.default_rng(0).integers(1, 23, (2, 7)).astype(np.int32)
SCHEMES = {
    "int8": {"format": "int8"},
    "int8_tensor": {"format": "int8", "group": "tensor"},
    "int8_groups": {"format": "int8", "group": 4, "symmetric": False},
    "int4": {"format": "int4", "symmetric": False},
    "int4_groups": {"format": "int4", "group": 4},
    "nf4": {"format": "nf4", "group": 4},
}

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_definition(kernel, scheme):
    """The nearest codes, one group at a time, in float64."""
    inputs, outputs = kernel.shape
    group = scheme.get("group", "channel")
    size = inputs if isinstance(group, str) else group
    result = np.zeros(kernel.shape)
    for first in range(0, inputs, size):
        for o in range(outputs):
            own = kernel[first : first + size, o].astype(np.float64)
            seen = kernel if group == "tensor" else own
            low, high = min(seen.min(), 0), max(seen.max(), 0)
            if scheme["format"] == "nf4":
                scale = max(-low, high)
                codes, zero = NF4[np.abs(own[:, None] / scale - NF4).argmin(axis=1)], 0
            else:
                least, greatest = quantized.LIMITS[scheme["format"]]
                symmetric = scheme.get("symmetric", True)
                scale = max(-low, high) / ((greatest - least) / 2) if symmetric else (high - low) / (greatest - least)
                zero = 0 if symmetric else np.round(least - low / scale)
                codes = np.clip(np.round(own / scale) + zero, least, greatest)
            result[first : first + size, o] = scale * (codes - zero)
    return result


def assert_as_near(ours, expected, kernel):
    """The same distance from the kernel: the end of a symmetric range is half a step from two codes."""
    np.testing.assert_allclose(np.abs(ours - kernel), np.abs(expected - kernel), atol=1e-5)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_kernel_is_rounded_to_the_nearest_codes_of_its_groups(name):
    kernel = normal(8, 5)
    ours = quantize(kernel, **SCHEMES[name])
    assert_as_near(dequantize(ours), by_definition(kernel, SCHEMES[name]), kernel)
    assert (ours.shape, ours.ndim, ours.dtype) == ((8, 5), 2, "float32")


@pytest.mark.parametrize("name", SCHEMES)
def test_a_stack_is_the_stack_of_its_layers(name):
    kernels = normal(3, 8, 5)
    stacked = quantize(kernels, **SCHEMES[name])
    for i, kernel in enumerate(kernels):
        chex.assert_trees_all_equal(jax.tree.map(lambda x: x[i], stacked), quantize(kernel, **SCHEMES[name]))  # noqa: B023
    np.testing.assert_array_equal(dequantize(stacked)[1], dequantize(quantize(kernels[1], **SCHEMES[name])))


@pytest.mark.parametrize("inputs", [8, 7])
def test_two_codes_of_four_bits_share_a_byte(inputs):
    kernel = normal(inputs, 6)
    assert quantize(kernel, "int4").codes.nbytes == (inputs + 1) // 2 * 6
    assert quantize(kernel, "int4").nbytes == (inputs + 1) // 2 * 6 + 6 * 4
    assert_as_near(dequantize(quantize(kernel, "int4")), by_definition(kernel, {"format": "int4"}), kernel)
    x = normal(3, inputs, seed=1)
    np.testing.assert_allclose(product(x, quantize(kernel, "nf4")), x @ dequantize(quantize(kernel, "nf4")), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    hnp.arrays(np.float32, (6, 4), elements=st.floats(-1e3, 1e3, width=32)),
    st.sampled_from(["int8", "int4"]),
    st.booleans(),
    st.sampled_from(["tensor", "channel", 2]),
)
def test_no_weight_moves_by_more_than_half_a_step(kernel, format, symmetric, group):
    ours = quantize(kernel, format, symmetric=symmetric, group=group)
    steps = np.repeat(np.broadcast_to(ours.scale, (*ours.scale.shape[:1], 4)), 6 // ours.scale.shape[0], axis=0)
    # Both ends of a range lie within half a step of a code, and the zero point itself is rounded once more.
    slack = 0.5 if symmetric else 1.0
    assert np.all(np.abs(dequantize(ours) - kernel) <= slack * steps * (1 + 1e-4) + 1e-30)
    assert np.all(np.asarray(dequantize(ours))[kernel == 0] == 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("rows", [(), (1,), (2, 3)])
def test_a_product_and_its_gradient_are_those_of_the_dequantised_kernel(name, rows):
    kernel, x = quantize(normal(8, 5), **SCHEMES[name]), normal(*rows, 8, seed=1)
    np.testing.assert_allclose(product(x, kernel), x @ dequantize(kernel), atol=1e-5)
    gradient = jax.grad(lambda x: product(x, kernel).sum())(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(np.sum(dequantize(kernel), axis=1), x.shape), atol=1e-5)


def test_the_product_of_half_precision_is_accumulated_in_float32():
    kernel, x = quantize(normal(512, 4), "int8"), jnp.asarray(normal(3, 512, seed=1), jnp.bfloat16)
    y = product(x, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, np.asarray(x, np.float64) @ np.asarray(dequantize(kernel), np.float64), atol=1e-3)


def affine_7_bits(x):
    """What PyTorch's dynamic mode makes of activations."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    step = (high - low) / 127
    zero = np.round(-low / step)
    return step * (np.clip(np.round(x / step) + zero, 0, 127) - zero)


def signed_8_bits(x):
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return step * np.round(x / step)


@pytest.mark.parametrize(("activations", "rounded"), [("tensor", affine_7_bits), ("token", signed_8_bits)])
@pytest.mark.parametrize("rows", [1, 4])
def test_integer_products_are_those_of_rounded_activations_and_have_the_gradient_without_rounding(
    activations, rounded, rows
):
    kernel = quantize(normal(16, 5), "int8", group="tensor", activations=activations)
    x = normal(rows, 16, seed=1)
    np.testing.assert_allclose(product(x, kernel), rounded(x.astype(np.float64)) @ dequantize(kernel), atol=1e-5)
    lowered = jax.jit(product).lower(x, kernel).as_text()
    assert "tensor<16x5xi8>) -> tensor" in lowered and "xi32>" in lowered
    gradient = jax.grad(lambda x: product(x, kernel).sum())(x)
    np.testing.assert_allclose(gradient, np.broadcast_to(np.sum(dequantize(kernel), axis=1), x.shape), atol=1e-5)


def test_activations_that_are_all_zero_give_zero():
    for activations in ("tensor", "token"):
        kernel = quantize(normal(4, 2), "int8", activations=activations)
        np.testing.assert_array_equal(product(np.zeros((2, 4), np.float32), kernel), np.zeros((2, 2)))


def test_a_kernel_of_zeros_stays_zero():
    for format in quantized.FORMATS:
        np.testing.assert_array_equal(dequantize(quantize(np.zeros((4, 2), np.float32), format)), np.zeros((4, 2)))


@pytest.fixture(scope="module")
def params():
    """Random parameters by family; nothing is zero."""

    def make(module):
        inputs = {"decoder_tokens_BxT": TOKENS} if isinstance(module, T5) else {}
        shapes = jax.eval_shape(module.init, jax.random.key(0), TOKENS, **inputs)["params"]
        leaves, treedef = jax.tree.flatten(shapes)
        return treedef.unflatten([0.5 * normal(*leaf.shape, seed=i) for i, leaf in enumerate(leaves)])

    return {name: make(module) for name, module in MODULES.items()}


def compressed(params, **scheme):
    """All dense kernels of a model quantised."""

    def fit(kernel, path):
        fits = kernel.shape[-2] % 4 == 0
        return quantize(kernel, **(scheme if fits else {**scheme, "group": "channel"}))

    return transform.update(params, "**/kernel", fit)


def pretrained_of(name, params):
    return Pretrained(params, MODULES[name], MODULES[name].config)


@pytest.mark.parametrize("name", ["llama", slow("bert"), "mamba", slow("t5")])
def test_models_run_on_quantised_parameters_as_on_dequantised_ones(name, params):
    pretrained = pretrained_of(name, params[name])
    inputs = {"decoder_tokens": TOKENS} if name == "t5" else {}
    run = jax.jit(lambda params: pretrained.apply(params, TOKENS, **inputs))
    small = compressed(params[name], format="int4", group=4)
    np.testing.assert_allclose(run(small), run(dequantize(small)), atol=2e-4)


@pytest.mark.slow
def test_a_quantised_model_writes_with_its_cache_what_the_dequantised_one_does(params):
    pretrained = pretrained_of("llama", compressed(params["llama"], format="nf4"))
    texts = generate(pretrained, TOKENS, max_new_tokens=4)
    dequantised = pretrained_of("llama", dequantize(pretrained.params))
    np.testing.assert_array_equal(texts.tokens, generate(dequantised, TOKENS, max_new_tokens=4).tokens)


def test_a_model_of_integer_products_writes_with_its_cache_what_it_writes_without(params):
    """Each token's activations are rounded by themselves, so that it does not matter what is beside them."""
    pretrained = pretrained_of("llama", compressed(params["llama"], format="int8", activations="token"))
    ours = generate(pretrained, TOKENS, max_new_tokens=3).tokens
    row = np.pad(TOKENS, ((0, 0), (0, 3)))
    run = jax.jit(pretrained.apply)
    for end in range(7, 10):
        row[:, end] = run(pretrained.params, row)[:, end - 1].argmax(-1)
    np.testing.assert_array_equal(ours, row[:, 7:])


@pytest.mark.slow
def test_transforms_see_a_quantised_model(params):
    small = compressed(params["llama"], format="int8")
    apply_fn = lambda params, tokens: MODULES["llama"].apply({"params": params}, tokens).logits
    seen = []

    def low_rank(dense, x, adapter):
        seen.append(dense.kernel)
        return dense(x) + (x @ adapter["a"]) @ adapter["b"]

    adapter = {"layers/mlp/up": {"a": normal(2, 8, 2), "b": normal(2, 2, 12)}}
    loss = lambda adapter, params: transform.intercept(apply_fn, {"layers/mlp/up": low_rank}, per_site=adapter)(
        params, TOKENS
    ).sum()
    ours, expected = (jax.jit(jax.value_and_grad(loss))(adapter, p) for p in (small, dequantize(small)))
    chex.assert_trees_all_close(ours, expected, rtol=2e-3)
    assert isinstance(seen[0], Quantized) and seen[0].shape == (8, 12)
    site = transform.sites(apply_fn, small, TOKENS)["layers/mlp/up"]
    assert site.is_dense and site.stack == (2,) and site.params["kernel"].shape == (8, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "int3"}, "format must be one of"),
        ({"format": "nf4", "symmetric": False}, "symmetric must be True for nf4"),
        ({"group": 3}, "group must divide the 8 inputs"),
        ({"format": "int4", "group": 1}, "group must be even"),
        ({"group": "row"}, "group must divide the 8 inputs, or be 'channel' or 'tensor', got 'row'"),
        ({"activations": "static"}, "activations must be 'float', 'tensor' or 'token', got 'static'"),
        ({"format": "int4", "activations": "tensor"}, "activations must be 'float' unless codes are int8"),
        ({"group": 4, "activations": "token"}, "activations must be 'float' unless codes are int8"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        quantize(normal(8, 5), **arguments)


def test_kernels_that_are_not_finite_and_shapes_that_do_not_fit_are_refused():
    kernel = normal(8, 5)
    kernel[3, 2] = np.nan
    with pytest.raises(ValueError, match="kernel must be finite"):
        quantize(kernel)
    with pytest.raises(ValueError, match=r"kernel must be \(7, d_out\) for activations \(2, 7\), got \(8, 5\)"):
        product(normal(2, 7), quantize(normal(8, 5)))
    with pytest.raises(ValueError, match=r"must be \(8, d_out\)"):
        product(normal(2, 8), quantize(normal(3, 8, 5)))


@pytest.mark.oracle
@pytest.mark.parametrize("rows", [1, 5])
def test_the_dynamic_mode_is_that_of_torch(rows):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    import warnings

    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Linear(48, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the successor of its quantisation
        peer = torch.ao.quantization.quantize_dynamic(linear, {torch.nn.Linear}, dtype=torch.qint8)
        x = torch.randn(rows, 48)
        expected = peer(x).detach().numpy()
        codes = peer[0].weight().int_repr().numpy().T
    kernel = quantize(linear[0].weight.detach().numpy().T, "int8", group="tensor", activations="tensor")
    np.testing.assert_array_equal(kernel.codes, codes)
    np.testing.assert_allclose(product(x.numpy(), kernel) + linear[0].bias.detach().numpy(), expected, atol=1e-5)
