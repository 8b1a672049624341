"""Pruning and quantisation together, the final layer by itself, and recovery by adapters with masks that stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compression import tiny
from zsml_jax import compression, models, peft, train, transform
from zsml_jax.compression import apply_masks, groups, keep_masks, masks_of_zeros, prune, quantize
from zsml_jax.models.quantized import dequantize
from zsml_jax.models.untied import untie

TOKENS = np.random.default_rng(0).integers(1, tiny.VOCAB, (6, 8)).astype(np.int32)


def test_quantising_what_was_pruned_leaves_exactly_the_weights_that_were_kept():
    """The paper's section 4.3: prune a share of a group, then quantise the same group."""
    pretrained = tiny.model("bert")
    found = groups(pretrained, preset="paper")
    for share in (0.2, 0.4):
        pruned = prune(pretrained.params, "magnitude", share, groups=found.attention)
        small = quantize(pruned.params, "dynamic", groups=found.attention)
        for path, kernel in transform.select(small, list(found.attention)).items():
            assert not np.any(np.asarray(dequantize(kernel))[~np.asarray(pruned.masks[path])])
        kernels = transform.select(small, list(found.attention))
        assert compression.size_report(kernels).effective_sparsity >= pruned.sparsity - 1e-9
        untouched = transform.select(small, list(found.feed_forward))
        assert all(kernel is pretrained_kernel(pretrained, path) for path, kernel in untouched.items())


def pretrained_kernel(pretrained, path):
    (kernel,) = transform.select(pretrained.params, path).values()
    return kernel


@pytest.mark.parametrize("within", ["global", "rows"])
@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_the_final_layer_loses_whole_words_where_rows_are_pruned(method, within, key):
    """The paper's section 4.4. A row of the head is a word: without it the score is the bias, whatever is read."""
    pretrained = untie(tiny.model("bert").replace(params=tied(tiny.model("bert").params)))
    (path,) = groups(pretrained)["head"]
    assert path == "head/decoder/kernel"
    pruned = prune(pretrained.params, method, 0.5, groups=path, within=within, key=key)
    logits = np.asarray(jax.jit(pretrained.apply)(pruned.params, TOKENS))
    bias = np.asarray(pretrained.params["head"]["bias"])
    lost = np.isclose(logits, bias, atol=1e-6).all(axis=(0, 1))
    # Of eight weights a word keeps at least one nearly always.
    assert lost.sum() == round(0.5 * tiny.VOCAB) if within == "rows" else lost.sum() <= 1
    assert pruned.sparsity == pytest.approx(0.5, abs=1 / tiny.VOCAB)


def tied(params):
    """The parameters of the same model with a head that is its word embedding."""
    return {**params, "head": {name: leaf for name, leaf in params["head"].items() if name != "decoder"}}


def test_masks_come_back_with_a_model_that_was_saved(tmp_path):
    pretrained = models.load(tiny_folder())
    paths = groups(pretrained).feed_forward
    pruned = prune(pretrained.params, "magnitude", 0.5, groups=paths)
    models.save(pretrained.replace(params=pruned.params), tmp_path / "out")
    again = masks_of_zeros(models.load(tmp_path / "out").params, list(paths))
    assert all(np.array_equal(again[path], pruned.masks[path]) for path in paths)


def tiny_folder():
    from tests.models.conftest import DECODERS

    return DECODERS / "llama"


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [peft.MoRe(blocks=2, block_rank=2, targets=["up", "down"]), peft.LoRA(rank=2, alpha=2, targets=["up", "down"])],
    ids=["more", "lora"],
)
def test_an_adapter_recovers_a_pruned_model_and_its_masked_merge_computes_what_was_trained(method, key):
    """Trained through the masked merge, so that what is merged is what was trained and no weight comes back."""
    pretrained = tiny.model("llama")
    paths = groups(pretrained)["feed_forward"]
    pruned = prune(pretrained.params, "magnitude", 0.5, groups=paths)
    base = pretrained.replace(params=pruned.params)
    adapter = peft.adapt(base, method, key=key)
    expected = pretrained.apply(pretrained.params, TOKENS)
    merged = lambda adapter: apply_masks(peft.merge_params(base.params, adapter), pruned.masks)
    loss = lambda arrays: jnp.square(pretrained.apply(merged(adapter.replace(arrays=arrays)), TOKENS) - expected).mean()
    rule = optax.adam(1e-2)
    step = jax.jit(jax.value_and_grad(loss))
    arrays, state, losses = adapter.arrays, rule.init(adapter.arrays), []
    for _ in range(40):
        value, gradient = step(arrays)
        losses.append(float(value))
        updates, state = rule.update(gradient, state, arrays)
        arrays = optax.apply_updates(arrays, updates)
    trained = adapter.replace(arrays=arrays)
    whole, plain = merged(trained), peft.merge(base, trained)
    for path in pruned.masks:
        removed = ~np.asarray(pruned.masks[path])
        assert not np.any(np.asarray(*transform.select(whole, path).values())[removed])
    filled = [path for path in pruned.masks if path.split("/")[-2] in ("up", "down")]
    for path in filled:  # without its mask the merge brings weights back
        assert np.any(np.asarray(*transform.select(plain, path).values())[~np.asarray(pruned.masks[path])])
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_allclose(loss(arrays), jnp.square(pretrained.apply(whole, TOKENS) - expected).mean(), rtol=1e-5)


@pytest.mark.slow
def test_full_fine_tuning_with_kept_masks_recovers_too(key):
    pretrained = tiny.model("llama")
    paths = groups(pretrained)["feed_forward"]
    pruned = prune(pretrained.params, "magnitude", 0.5, groups=paths)
    expected = pretrained.apply(pretrained.params, TOKENS)
    loss_fn = lambda params, batch, key: (jnp.square(pretrained.apply(params, batch) - expected).mean(), {})
    fitted = train.fit(
        loss_fn, pruned.params, [TOKENS] * 30, optimizer=keep_masks(optax.adam(1e-2), pruned.masks), steps=30, key=key
    )
    assert loss_fn(fitted.params, TOKENS, None)[0] < 0.5 * loss_fn(pruned.params, TOKENS, None)[0]
    for path, kernel in transform.select(fitted.params, list(paths)).items():
        assert not np.any(np.asarray(kernel)[~np.asarray(pruned.masks[path])])
