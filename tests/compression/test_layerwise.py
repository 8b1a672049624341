"""Methods that go block by block against the same on inputs captured from the whole model."""

import jax
import numpy as np
import pytest

from tests.compression import tiny
from zsml_jax import compression, transform
from zsml_jax.compression import Calibration, groups, prune
from zsml_jax.compression.calibration import add, statistics_of
from zsml_jax.compression.error_feedback import sparsegpt

slow = lambda name: pytest.param(name, marks=pytest.mark.slow)


def captured(data, params, sites):
    """All inputs of dense layers, as one array of rows for each layer of each site."""
    module = data.pretrained.module
    decoder = {} if data.decoder_tokens is None else {"decoder_tokens_BxT": data.decoder_tokens}
    apply = lambda params: module.apply({"params": params}, data.tokens, **decoder)
    _, seen = jax.jit(transform.capture(apply, sites, of="input"))(params)
    return {site: np.asarray(x).reshape(*x.shape[: x.ndim - 3], -1, x.shape[-1]) for site, x in seen.items()}


def wanda(kernel, x, sparsity=0.5):
    scores = np.abs(kernel) * np.sqrt(np.square(x).sum(axis=0))[:, None]
    order = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0, kind="stable")
    return np.where(order >= round(sparsity * len(kernel)), kernel, 0)


def adjusted(kernel, x, sparsity=0.5):
    return np.asarray(sparsegpt(kernel, 2 * x.T @ x / len(x), sparsity)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "one"), [("wanda", wanda), ("sparsegpt", adjusted)])
def test_each_layer_is_pruned_on_what_the_pruned_layers_before_it_give(method, one):
    pretrained = tiny.model("llama")
    data, paths = tiny.calibration(pretrained), groups(pretrained).all
    ours = prune(pretrained.params, method, 0.5, groups=paths, calibration=data)
    params = pretrained.params
    for layer in range(2):
        inputs = captured(data, params, [path.removesuffix("/kernel") for path in paths])

        def pruned(kernels, path, layer=layer, inputs=inputs):
            new = np.array(kernels)
            new[layer] = one(new[layer], inputs[path.removesuffix("/kernel")][layer])
            return new

        params = transform.update(params, list(paths), pruned)
    for path, kernel in transform.select(params, list(paths)).items():
        (own,) = transform.select(ours.params, path).values()
        np.testing.assert_array_equal(np.asarray(own) == 0, kernel == 0)
        np.testing.assert_allclose(own, kernel, atol=2e-3)
        np.testing.assert_array_equal(ours.masks[path], kernel != 0)
    assert ours.sparsity == 0.5


@pytest.mark.parametrize("name", [slow("mamba"), "bert", slow("albert"), slow("t5")])
def test_every_family_is_pruned_block_by_block(name):
    pretrained = tiny.model(name)
    found = groups(pretrained)
    paths = [*found.attention, *found.feed_forward, *found.mixer]
    data = tiny.calibration(pretrained)
    ours = prune(pretrained.params, "wanda", 0.5, groups=paths, calibration=data)
    assert set(ours.masks) == set(paths)
    sizes = transform.select(pretrained.params, paths)
    removed = {path: round(0.5 * k.shape[-2]) * k.size // k.shape[-2] for path, k in sizes.items()}
    assert {path: int((~np.asarray(mask)).sum()) for path, mask in ours.masks.items()} == removed
    # The first layer's queries see what the unpruned model gives them.
    first = paths[0] if name == "mamba" else next(path for path in paths if path.endswith("attention/query/kernel"))
    site = first.removesuffix("/kernel")
    seen = captured(data, pretrained.params, [site])
    x = np.concatenate(list(seen.values())) if name == "albert" else seen[site]
    x, kernel = (x, sizes[first]) if x.ndim == 2 else (x[0], sizes[first][0])
    (own,) = transform.select(ours.params, first).values()
    np.testing.assert_array_equal(own if own.ndim == 2 else own[0], wanda(kernel, x))


@pytest.mark.parametrize(("method", "within"), [("wanda", "2:4"), ("sparsegpt", "2:4"), ("wanda", "layer")])
def test_patterns_and_layers_are_exact(method, within):
    pretrained = tiny.model("llama")
    paths = groups(pretrained)["feed_forward"]
    ours = prune(pretrained.params, method, 0.5, groups=paths, within=within, calibration=tiny.calibration(pretrained))
    for mask in ours.masks.values():
        kept = np.asarray(mask).reshape(2, -1, 4, mask.shape[-1]).sum(axis=2)
        assert np.all(kept == 2) if within == "2:4" else np.all(kept.sum(axis=(1, 2)) == mask[0].size // 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", slow("bert"), slow("t5"), slow("mamba")])
def test_padding_counts_for_nothing(name):
    pretrained = tiny.model(name)
    data = tiny.calibration(pretrained)
    found = groups(pretrained)
    short = Calibration(pretrained, data.tokens[:, :6], data.decoder_tokens, batch_size=3)
    mask = np.broadcast_to(np.arange(9) < 6, data.tokens.shape)
    padded = Calibration(pretrained, data.tokens, data.decoder_tokens, batch_size=3, mask=mask)
    paths = [*found.attention, *found.feed_forward, *found.mixer]
    run = lambda given: prune(pretrained.params, "sparsegpt", 0.5, groups=paths, calibration=given)
    ours, expected, other = run(padded), run(short), run(data)
    for path, kernel in transform.select(expected.params, paths).items():
        (own,) = transform.select(ours.params, path).values()
        np.testing.assert_allclose(own, kernel, atol=2e-3)
    different = lambda a, b: sum(int((np.asarray(a.masks[path]) != b.masks[path]).sum()) for path in paths)
    assert different(ours, expected) == 0 < different(other, expected)


def test_statistics_of_batches_are_those_of_all():
    x = np.random.default_rng(0).normal(size=(7, 3, 5)).astype(np.float32)
    whole, parts = statistics_of(x, gram=True), add(statistics_of(x[:4], gram=True), statistics_of(x[4:], gram=True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), whole, parts)
    rows = x.reshape(-1, 5)
    np.testing.assert_allclose(whole.hessian, 2 * rows.T @ rows / 21, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(whole.largest, np.abs(rows).max(axis=0))
    with pytest.raises(ValueError, match="gram must have been collected"):
        _ = statistics_of(x, gram=False).hessian


def test_what_does_not_fit_is_refused(unchecked_types):
    pretrained = tiny.model("llama")
    data, found = tiny.calibration(pretrained), groups(pretrained)
    given = {"groups": found.attention, "calibration": data}
    for arguments, message in [
        ({"calibration": None}, "calibration must be given for 'wanda'"),
        ({"within": "global"}, "within must be 'layer', 'output', 'rows' or such as '2:4' with 'wanda', got 'global'"),
        ({"groups": found.head}, "groups must be kernels in layers for a method with calibration data; head/kernel"),
        ({"within": "3:4"}, "within 3:4 must have the sparsity 1 - 3/4, got 0.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            prune(pretrained.params, "wanda", 0.5, **{**given, **arguments})
    with pytest.raises(ValueError, match="within must be 'layer' or such as '2:4' with 'sparsegpt', got 'output'"):
        prune(pretrained.params, "sparsegpt", 0.5, within="output", **given)
    broken = transform.update(pretrained.params, "norm/scale", lambda scale, _: scale)
    broken["embeddings"]["word"]["embedding"] = np.full_like(broken["embeddings"]["word"]["embedding"], np.nan)
    with pytest.raises(ValueError, match="calibration must give finite activations; those that enter layers/attention"):
        prune(broken, "wanda", 0.5, **given)


def test_calibration_data_that_do_not_fit_are_refused(unchecked_types):
    pretrained = tiny.model("llama")
    stream = np.arange(20) % tiny.VOCAB
    data = Calibration.of_stream(pretrained, stream, block=6, limit=2)
    np.testing.assert_array_equal(data.tokens, stream[:12].reshape(2, 6))
    assert [len(tokens) for tokens, _ in tiny.calibration(pretrained).batches()] == [3, 2]
    for make, message in [
        (lambda: Calibration.of_stream(pretrained, stream[:5], block=6), "at least one block of 6 tokens, got 5"),
        (lambda: Calibration.of_stream(pretrained, stream, block=0), "block and limit must be at least 1, got 0"),
        (lambda: compression.Calibration(pretrained, stream), r"tokens must be integers \(n, t\)"),
        (lambda: Calibration(pretrained, stream[None] + 20), r"tokens must lie in 0 \.\.\. 22, got 20 \.\.\. 39"),
        (
            lambda: Calibration(pretrained, stream[None], mask=np.ones(20)),
            r"mask must be \(1, 20\) with a token in each",
        ),
        (lambda: Calibration(pretrained, stream[None], mask=np.zeros((1, 20), int)), "mask must be .* with a token"),
        (lambda: Calibration(pretrained, stream[None], batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda: Calibration(pretrained, stream[None], np.ones((2, 2), int)), "decoder_tokens must have 1 rows, got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
