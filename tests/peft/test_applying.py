"""An adapted model against its merged parameters, its dense form, and itself in another form."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.peft.conftest import TOKENS, randomised
from tests.transform.stacks import LAYERS, Numbered, Scanned, apply_of, numbered_params, random_params
from zsml_jax import peft
from zsml_jax.models.generate import generate

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
CONFIGS = {
    "more": peft.MoRe(blocks=2, block_rank=4),
    "rslora": peft.LoRA(rank=4, alpha=3.0, scaling="root_rank"),
    "dora": peft.DoRA(rank=2, alpha=3.0),
    "vera": peft.VeRA(rank=5),
    "ia3": peft.IA3(targets=("up", "down")),
    "oft": peft.OFT(block_size=2),
    "boft": peft.BOFT(block_size=2, factors=2, targets=("up", "head")),
    "full": peft.FullFineTuning(),
    "lora and biases": peft.LoRA(rank=2, train="bias"),
}
SLOW = ("rslora", "vera", "oft")
EACH = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CONFIGS]


@pytest.fixture(scope="module")
def params():
    return random_params(Scanned(), X)


def adapted(config, params, module=None, seed=0):
    """A random adapter and the function that runs it."""
    apply_fn = apply_of(module or Scanned())
    adapter = peft.init(apply_fn, params, config, X, key=jax.random.key(seed))
    return randomised(adapter, seed, scale=0.2), jax.jit(peft.apply_fn(apply_fn))


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_a_fresh_adapter_changes_nothing(name, params):
    apply_fn = apply_of(Scanned())
    adapter = peft.init(apply_fn, params, CONFIGS[name], X, key=jax.random.key(0))
    np.testing.assert_allclose(peft.apply_fn(apply_fn)(adapter, params, X), apply_fn(params, X), atol=1e-5)


@pytest.mark.parametrize("name", EACH)
def test_the_merged_model_computes_what_the_adapted_one_does(name, params):
    adapter, run = adapted(CONFIGS[name], params)
    output, merged = run(adapter, params, X), peft.merge_params(params, adapter)
    assert np.abs(output - apply_of(Scanned())(params, X)).max() > 1e-2
    np.testing.assert_allclose(apply_of(Scanned())(merged, X), output, atol=1e-5, rtol=1e-5)
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, params)


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_gradients_are_those_of_the_merged_model_and_reach_only_what_is_trained(name, params):
    adapter, run = adapted(CONFIGS[name], params)
    loss = lambda output: jnp.mean(jnp.tanh(output))
    ours = jax.jit(jax.grad(lambda adapter: loss(run(adapter, params, X))))(adapter)
    dense = jax.jit(jax.grad(lambda adapter: loss(apply_of(Scanned())(peft.merge_params(params, adapter), X))))(adapter)
    trained = lambda gradient: (gradient.arrays, gradient.weights)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), trained(ours), trained(dense))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(trained(ours)))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((ours.numbers, ours.shared)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"),
    [("more", (0, 2)), ("ia3", (1,)), *(pytest.param(n, None, marks=pytest.mark.slow) for n in ("more", "ia3"))],
)
def test_scanned_layers_compute_what_numbered_ones_do(name, layers, params):
    config = dataclasses.replace(CONFIGS[name], layers=layers, targets=("up", "down"))
    scanned, run = adapted(config, params)
    numbered, run_numbered = adapted(config, numbered_params(params), Numbered())
    assert scanned.parameters == numbered.parameters
    assert set(numbered.arrays) == set(numbered_arrays(scanned, layers))
    expected = run_numbered(numbered.replace(arrays=numbered_arrays(scanned, layers)), numbered_params(params), X)
    np.testing.assert_allclose(run(scanned, params, X), expected, atol=1e-5)
    merged = peft.merge_params(params, scanned)
    np.testing.assert_allclose(apply_of(Scanned())(merged, X), expected, atol=1e-5)
    others = sorted(set(range(LAYERS)) - set(range(LAYERS) if layers is None else layers))
    same = lambda old, new: np.testing.assert_array_equal(old[np.array(others, int)], new[np.array(others, int)])
    jax.tree.map(same, params["layers"], merged["layers"])


def numbered_arrays(scanned, layers):
    """The arrays of a scanned network's adapter as those of the network with numbered layers."""
    return {
        path.replace("layers/", f"layer_{i}/"): jax.tree.map(lambda leaf, row=row: leaf[row], own)
        for path, own in scanned.arrays.items()
        for row, i in enumerate(range(LAYERS) if layers is None else layers)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["more", pytest.param("dora", marks=pytest.mark.slow), "vera"])
def test_other_values_and_numbers_never_recompile(name, params):
    chex.clear_trace_counter()  # it counts by the place of the function, which all methods share
    run = jax.jit(chex.assert_max_traces(peft.apply_fn(apply_of(Scanned())), 1))
    for seed in range(3):
        config = dataclasses.replace(CONFIGS[name], alpha=seed + 1.0, dropout=(0.1, 0.2, 0.3)[seed])
        adapter, _ = adapted(config, params, seed=seed)
        assert adapter.config == config
        expected = apply_of(Scanned())(peft.merge_params(params, adapter), X)
        np.testing.assert_allclose(run(adapter, params, X), expected, atol=1e-5)


def test_dropout_acts_on_the_output_of_the_adapter(params, key):
    """A number of the adapter's term is either dropped or divided by the share that is kept; the base is untouched."""
    adapter, run = adapted(peft.LoRA(rank=2, dropout=0.25, targets="head"), params)
    base, plain = apply_of(Scanned())(params, X), run(adapter, params, X)
    ratios = np.stack([(run(adapter, params, X, key=jax.random.key(i)) - base) / (plain - base) for i in range(100)])
    assert np.all(np.isclose(ratios, 0, atol=1e-3) | np.isclose(ratios, 4 / 3, atol=1e-3))
    assert np.mean(ratios > 1) == pytest.approx(0.75, abs=0.04)
    np.testing.assert_array_equal(run(adapter, params, X, key=key), run(adapter, params, X, key=key))


@pytest.mark.parametrize("remat", [False, True])
def test_dropout_differs_between_layers_of_a_stack(remat, params):
    """With layers that add the same whatever comes in, the sum over them shows what each has dropped."""
    flat = jax.tree.map(jnp.zeros_like, params)
    flat["layers"]["mlp"]["up"]["bias"] += 1.0
    flat["head"]["kernel"] = jnp.eye(4, 2)
    adapter, run = adapted(peft.LoRA(rank=1, dropout=0.5, targets="down"), flat, Scanned(remat=remat))
    adapter = adapter.replace(arrays=jax.tree.map(jnp.ones_like, adapter.arrays))
    sums = run(adapter, flat, np.zeros((400, 4), np.float32), key=jax.random.key(0))
    one = run(adapter, flat, np.zeros((1, 4), np.float32))[0, 0] / LAYERS
    kept = np.asarray(sums / one / 2).round(3)
    # Independent layers: 0, 1, 2 or 3 of 3 are kept, as often as heads of three coins; alike ones would be 0 or 3.
    share = [np.mean(np.isclose(kept, i, atol=1e-2)) for i in range(4)]
    np.testing.assert_allclose(share, [1 / 8, 3 / 8, 3 / 8, 1 / 8], atol=0.06)


@pytest.mark.slow
def test_adapters_train_in_lower_precision(params):
    """In bfloat16 nothing but rounding changes, and the output has the dtype of the model."""
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    for name in ("more", "dora"):
        adapter, run = adapted(CONFIGS[name], params)
        run_half = jax.jit(peft.apply_fn(apply_of(Scanned("bfloat16"))))
        output = run_half(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), adapter), half, X)
        assert output.dtype == jnp.bfloat16
        np.testing.assert_allclose(output.astype(np.float32), run(adapter, params, X), atol=0.2, rtol=0.1)


def test_an_adapter_that_does_not_fit_is_refused(params):
    adapter, run = adapted(peft.LoRA(rank=2), params)
    other = jax.tree.map(lambda leaf: leaf, params)
    other["layers"]["mlp"]["up"]["kernel"] = jnp.ones((3, 4, 7))
    with pytest.raises(ValueError, match=r"of another model: it needs a kernel \(3, 4, 6\) at 'layers/mlp/up'"):
        run(adapter, other, X)
    wrong = {**adapter.arrays, "layers/mlp/up": {"a": np.ones((3, 4, 5)), "b": np.ones((3, 5, 6))}}
    with pytest.raises(ValueError, match=r"the shape \(3, 4, 2\) for 'a' at 'layers/mlp/up', got \(3, 4, 5\)"):
        run(adapter.replace(arrays=wrong), params, X)
    with pytest.raises(ValueError, match="arrays for layers that it does not adapt: .'layers/mlp/sideways'"):
        run(adapter.replace(arrays={**adapter.arrays, "layers/mlp/sideways": {}}), params, X)
    extra = {**adapter.arrays, "layers/mlp/up": {**adapter.arrays["layers/mlp/up"], "c": np.ones(3)}}
    with pytest.raises(ValueError, match="arrays at 'layers/mlp/up' that its method does not know: .'c'"):
        run(adapter.replace(arrays=extra), params, X)
    with pytest.raises(ValueError, match="of several adapters; name one for each row in rows"):
        run(peft.stack([adapter, adapter]), params, X)
    with pytest.raises(ValueError, match=r"the model's shape \(3, 4\) for the parameter 'layers/mlp/down/bias'"):
        run(adapter.replace(weights={"layers/mlp/down/bias": np.ones(4)}), params, X)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["more", "vera", "full"])
def test_pretrained_models_of_both_kinds_merge(name, llama, bert):
    for model in (llama, bert):
        adapter = randomised(peft.adapt(model, CONFIGS[name], key=jax.random.key(0)), scale=0.1)
        expected = jax.jit(peft.apply)(model, adapter, TOKENS)
        np.testing.assert_allclose(model.apply(peft.merge(model, adapter), TOKENS), expected, atol=1e-5)
        assert np.abs(expected - model.apply(model.params, TOKENS)).max() > 1e-2


@pytest.mark.slow
def test_texts_are_written_by_adapters_as_by_the_merged_model(llama):
    """Also by a stack of two, one for each row of the prompts."""
    adapters = [randomised(peft.adapt(llama, CONFIGS["more"], key=jax.random.key(0)), seed) for seed in (0, 1)]
    write = peft.generate_fn(llama)
    both = generate(
        llama,
        TOKENS[:2],
        max_new_tokens=5,
        params={"adapter": peft.stack(adapters), "base": llama.params, "rows": jnp.arange(2)},
        apply_fn=write,
    )
    for i, adapter in enumerate(adapters):
        params = {"adapter": adapter, "base": llama.params}
        one = generate(llama, TOKENS[i : i + 1], max_new_tokens=5, params=params, apply_fn=write)
        merged = generate(llama, TOKENS[i : i + 1], max_new_tokens=5, params=peft.merge(llama, adapter))
        np.testing.assert_array_equal(one.tokens, merged.tokens)
        np.testing.assert_array_equal(both.tokens[i : i + 1], merged.tokens)
        np.testing.assert_allclose(one.log_probs, merged.log_probs, atol=1e-4)
