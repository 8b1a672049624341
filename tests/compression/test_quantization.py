"""Quantised models against torch's, and the methods against their formulas and against rounding to the nearest."""

import warnings

import jax
import numpy as np
import pytest

from tests.compression import tiny
from tests.models import tiny_models
from zsml_jax import models, transform
from zsml_jax.compression import groups, prune, quantize, size_report
from zsml_jax.compression.calibration import statistics_of
from zsml_jax.compression.input_scaling import awq, smoothquant
from zsml_jax.models.generate import generate
from zsml_jax.models.quantized import Quantized, dequantize
from zsml_jax.models.quantized import quantize as nearest
from zsml_jax.models.untied import untie

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)
RNG = np.random.default_rng(0)
#: Inputs of which two are far larger than the others, as in language models.
INPUTS = (RNG.normal(size=(64, 12)) * np.where(np.arange(12) % 6 == 1, 20, 1)).astype(np.float32)
KERNEL = RNG.normal(size=(12, 7)).astype(np.float32)
STATISTICS = statistics_of(INPUTS, gram=True)


def error(small):
    """Of the layer's output, the activations as they are."""
    return np.square(INPUTS @ (np.asarray(dequantize(small)) - KERNEL)).sum()


#: No symmetric integers: the end of their range lies half a step from two codes, which rounding may decide either way.
ASYMMETRIC = {"format": "int4", "symmetric": False}


@pytest.mark.parametrize("scheme", [ASYMMETRIC, {**ASYMMETRIC, "group": 4}, {"format": "nf4"}])
def test_awq_takes_the_best_of_its_grid(scheme):
    ours = awq(KERNEL, STATISTICS, **scheme)
    mean = np.abs(INPUTS).mean(axis=0)
    tried = []
    for step in range(20):
        t = np.maximum(mean ** (step / 20), 1e-4)
        t /= np.sqrt(t.max() * t.min())
        rounded = np.asarray(dequantize(nearest(KERNEL * t[:, None], **scheme))) / t[:, None]
        tried.append(np.square(INPUTS @ (rounded - KERNEL)).sum())
    np.testing.assert_allclose(error(ours), min(tried), rtol=1e-3)
    assert error(ours) < error(nearest(KERNEL, **scheme))


def test_smoothquant_moves_outliers_into_the_weights():
    ours = smoothquant(KERNEL, STATISTICS, activations="token")
    t = np.sqrt(np.abs(INPUTS).max(axis=0) / np.abs(KERNEL).max(axis=1))
    np.testing.assert_allclose(ours.input_scale, 1 / t, rtol=1e-5)
    np.testing.assert_allclose(dequantize(ours), KERNEL, atol=0.05)
    plain = nearest(KERNEL, activations="token")
    lost = lambda small: np.square(models.quantized.product(INPUTS, small) - INPUTS @ KERNEL).sum()
    assert lost(ours) < 0.7 * lost(plain)


@pytest.mark.parametrize("method", [slow("gptq"), slow("awq"), slow("smoothquant")])
def test_methods_with_data_give_a_model_that_runs_and_err_less_than_rounding(method):
    pretrained = tiny.model("llama")
    paths, data = groups(pretrained).all, tiny.calibration(pretrained, rows=8, length=16)
    scheme = {"format": "int8", "activations": "token"} if method == "smoothquant" else {"format": "int4"}
    run = jax.jit(lambda params: pretrained.apply(params, data.tokens))
    exact = run(pretrained.params)
    lost = {}
    for name in (method, "nearest"):
        small = quantize(pretrained.params, name, groups=paths, calibration=data, **scheme)
        kernels = transform.select(small, list(paths))
        assert all(isinstance(kernel, Quantized) and kernel.shape[0] == 2 for kernel in kernels.values())
        np.testing.assert_allclose(run(small), run(dequantize(small)), atol=0.5 if method == "smoothquant" else 1e-3)
        lost[name] = float(np.square(run(small) - exact).mean())
    assert lost[method] < lost["nearest"] * (1.1 if method == "smoothquant" else 1.0)
    ours = quantize(pretrained.params, method, groups=paths, calibration=data, **scheme)
    texts = generate(pretrained.replace(params=ours), data.tokens[:2, :5], max_new_tokens=2)
    assert texts.tokens.shape == (2, 2)


@pytest.mark.slow
def test_a_pruned_model_stays_pruned_when_it_is_quantised():
    pretrained = tiny.model("llama")
    paths, data = groups(pretrained)["feed_forward"], tiny.calibration(pretrained)
    pruned = prune(pretrained.params, "wanda", 0.5, groups=paths, calibration=data)
    for method, options in [
        ("nearest", {"format": "int4", "symmetric": False, "group": 4}),
        ("dynamic", {}),
        ("nearest", {"format": "nf4"}),
        ("gptq", {"format": "int4", "masks": pruned.masks}),
    ]:
        small = quantize(pruned.params, method, groups=paths, calibration=data, **options)
        for path, kernel in transform.select(small, list(paths)).items():
            assert not np.any(np.asarray(dequantize(kernel))[~np.asarray(pruned.masks[path])])


def test_the_report_says_what_is_stored_and_what_is_zero():
    pretrained = tiny.model("llama")
    paths = groups(pretrained).all
    dense = size_report(pretrained.params)
    assert (dense.stored_bytes, dense.ratio, dense.zeros) == (dense.dense_bytes, 1.0, 0)
    pruned = prune(pretrained.params, "magnitude", 0.5, groups=paths)
    kernels = transform.select(pruned.params, list(paths))
    part = size_report(kernels)
    assert part.effective_sparsity == 0.5 and part.stored_bytes == part.dense_bytes
    small = size_report(transform.select(quantize(pruned.params, "nearest", groups=paths), list(paths)))
    scales = sum(4 * kernel.shape[0] * kernel.shape[-1] for kernel in kernels.values())
    assert small.stored_bytes == small.weights + scales and small.weights == part.weights
    assert small.effective_sparsity >= 0.5
    assert small.bits_per_weight == pytest.approx(8 + 8 * scales / small.weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "round"}, r"method must be one of \['awq', .*\], got 'round'"),
        ({"method": "gptq"}, "calibration must be given for 'gptq'"),
        ({"method": "gptq", "format": "nf4"}, "format must be 'int8' or 'int4' with 'gptq', got 'nf4'"),
        ({"method": "dynamic", "format": "int4"}, "format must be 'int8' and symmetric with 'dynamic', got 'int4'"),
        ({"method": "awq", "masks": {}}, "masks must be None with 'awq'"),
        ({"group": 5}, "group must divide the 8 inputs"),
        ({"format": "int4", "activations": "token"}, "activations must be 'float' unless"),
        ({"groups": "layers/attention_norm/scale"}, "groups must be kernels of dense layers"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, unchecked_types):
    pretrained = tiny.model("llama")
    given = {"method": "nearest", "groups": groups(pretrained).all} | arguments
    with pytest.raises(ValueError, match=message):
        quantize(pretrained.params, given.pop("method"), **given)


def test_what_is_quantised_already_is_refused():
    pretrained = tiny.model("llama")
    small = quantize(pretrained.params, "nearest", groups="head/kernel")
    with pytest.raises(ValueError, match="groups must be kernels of dense layers, arrays of 2 or 3 axes; head/kernel"):
        quantize(small, "nearest", groups="head/kernel")


@pytest.mark.slow
@pytest.mark.oracle
def test_a_model_in_the_papers_mode_is_that_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    pytest.importorskip("transformers", reason="the oracle extra is not installed")
    model = tiny_models.save_tiny_model(tmp_path, "bert", masked_lm=True)
    pretrained = untie(models.load(tmp_path))
    ids = np.array([[5, 7, 9, 6, 8, 10]], np.int32)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch announces the successor of its quantisation
        exact = model(torch.tensor(ids).long()).logits.numpy()
        peer = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
        expected = peer(torch.tensor(ids).long()).logits.numpy()
    small = quantize(pretrained.params, "dynamic", groups=groups(pretrained, preset="paper").all_and_head)
    ours = np.asarray(pretrained.apply(small, ids))
    # A sum of another order may round an activation the other way; most are rounded alike.
    difference, rounding = np.abs(ours - expected), np.abs(expected - exact)
    assert np.median(difference) < 0.02 * np.median(rounding) and difference.mean() < 0.3 * rounding.mean()
