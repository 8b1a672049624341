"""Pruning against PyTorch's and against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax import compression
from zsml_jax.compression import prune

PATHS = ["layers/up/kernel", "layers/down/kernel", "head/kernel"]


def params_of(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    return {
        "layers": {"up": {"kernel": draw(3, 8, 12), "bias": draw(3, 12)}, "down": {"kernel": draw(3, 12, 8)}},
        "head": {"kernel": draw(8, 20)},
    }


def leaves(pruned):
    return {path: np.asarray(mask) for path, mask in pruned.masks.items()}


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.5001, 0.9, 0.999])
@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_a_global_sparsity_is_exact_to_one_weight(method, sparsity, key):
    params = params_of()
    pruned = prune(params, method, sparsity, groups=PATHS, key=key)
    total = 2 * 3 * 96 + 160
    removed = sum(int((~mask).sum()) for mask in pruned.masks.values())
    assert removed == round(sparsity * total)
    assert pruned.sparsity == pytest.approx(removed / total, abs=1e-12)
    zeros = sum(int((np.asarray(pruned.params["layers"][n]["kernel"]) == 0).sum()) for n in ("up", "down"))
    assert zeros + int((np.asarray(pruned.params["head"]["kernel"]) == 0).sum()) == removed
    assert pruned.params["layers"]["up"]["bias"] is params["layers"]["up"]["bias"]


def test_magnitudes_are_compared_globally_in_each_layer_or_for_each_output():
    params = params_of()
    kernel = params["layers"]["up"]["kernel"]
    everything = np.concatenate([np.abs(x).ravel() for x in (kernel, params["layers"]["down"]["kernel"])])
    threshold = np.sort(everything)[round(0.25 * everything.size)]
    masks = leaves(prune(params, "magnitude", 0.25, groups="layers/**/kernel"))
    np.testing.assert_array_equal(masks["layers/up/kernel"], np.abs(kernel) >= threshold)
    masks = leaves(prune(params, "magnitude", 0.25, groups="layers/**/kernel", within="layer"))
    for layer, mask in zip(kernel, masks["layers/up/kernel"], strict=True):
        np.testing.assert_array_equal(mask, np.abs(layer) >= np.sort(np.abs(layer).ravel())[24])
    masks = leaves(prune(params, "magnitude", 0.25, groups="layers/**/kernel", within="output"))
    np.testing.assert_array_equal(masks["layers/up/kernel"], np.abs(kernel) >= np.sort(np.abs(kernel), axis=1)[:, 2:3])


def test_rows_are_whole_outputs_of_each_layer_by_their_sum_of_magnitudes(key):
    kernel = params_of()["layers"]["up"]["kernel"]
    mask = leaves(prune(params_of(), "magnitude", 0.25, groups=PATHS[:1], within="rows"))[PATHS[0]]
    for layer, own in zip(kernel, mask, strict=True):
        removed = np.argsort(np.abs(layer).sum(axis=0))[:3]
        np.testing.assert_array_equal(own, np.broadcast_to(~np.isin(np.arange(12), removed), (8, 12)))
    mask = leaves(prune(params_of(), "random", 0.25, groups=PATHS[:1], within="rows", key=key))[PATHS[0]]
    assert np.all((mask == mask[:, :1]).all()) and np.all((~mask[:, 0]).sum(axis=-1) == 3)
    assert len({tuple(row) for row in mask[:, 0].tolist()}) > 1


@pytest.mark.parametrize(("pattern", "n", "m"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4)])
def test_a_pattern_keeps_the_n_largest_of_each_m_inputs(pattern, n, m):
    kernel = np.concatenate([params_of()["layers"]["up"]["kernel"], np.ones((3, 8, 2), np.float32)], axis=-1)
    pruned = prune({"up": {"kernel": kernel}}, "magnitude", 1 - n / m, groups="up/kernel", within=pattern)
    mask = leaves(pruned)["up/kernel"]
    groups, kept = np.abs(kernel).reshape(3, -1, m, 14), mask.reshape(3, -1, m, 14)
    assert np.all(kept.sum(axis=2) == n)
    order = np.argsort(groups, axis=2, kind="stable")
    np.testing.assert_array_equal(np.argsort(order, axis=2, kind="stable") >= m - n, kept)


def test_random_pruning_follows_its_key(key):
    first, again, other = (
        leaves(prune(params_of(), "random", 0.5, groups=PATHS, key=k)) for k in (key, key, jax.random.key(1))
    )
    assert all(np.array_equal(first[path], again[path]) for path in PATHS)
    assert not all(np.array_equal(first[path], other[path]) for path in PATHS)


def test_what_was_pruned_is_a_pytree_and_its_masks_take_a_merged_adapter_back():
    pruned = prune(params_of(), "magnitude", 0.5, groups=PATHS)
    pruned = jax.jit(lambda pruned: pruned)(pruned)
    merged = jax.tree.map(lambda x: x + 1, pruned.params)
    again = compression.apply_masks(merged, pruned.masks)
    for path, name in zip(PATHS[:2], ("up", "down"), strict=True):
        expected = np.where(pruned.masks[path], merged["layers"][name]["kernel"], 0)
        np.testing.assert_array_equal(again["layers"][name]["kernel"], expected)
    with pytest.raises(ValueError, match=r"masks must fit their kernels; at head/kernel \(2,\) is not \(8, 20\)"):
        compression.apply_masks(merged, {"head/kernel": np.ones(2, bool)})


def test_half_precision_keeps_its_dtype():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), params_of())
    assert prune(params, "magnitude", 0.5, groups=PATHS).params["head"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 1.0}, "sparsity must be at least 0 and less than 1, got 1.0"),
        ({"sparsity": -0.1}, "sparsity must be at least 0 and less than 1, got -0.1"),
        ({"sparsity": float("nan")}, "sparsity must be at least 0 and less than 1, got nan"),
        ({"within": "column"}, r"within must be one of \('global', .* or such as '2:4', got 'column'"),
        ({"within": "2:4", "sparsity": 0.4}, "within 2:4 must have the sparsity 1 - 2/4, got 0.4"),
        ({"within": "8:16", "sparsity": 0.5}, "within 8:16 needs inputs that are multiples of 16; those of layers/up"),
        ({"method": "largest"}, r"method must be one of \['magnitude', .*\], got 'largest'"),
        ({"method": "random"}, "key must be given to prune at random"),
        ({"groups": "layers/gate/kernel"}, "the pattern 'layers/gate/kernel' matches no parameter"),
        ({"groups": "layers/up/bias"}, "groups must be kernels"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, unchecked_types):
    given = {"method": "magnitude", "sparsity": 0.5, "groups": PATHS} | arguments
    with pytest.raises(ValueError, match=message):
        prune(params_of(), given.pop("method"), given.pop("sparsity"), **given)


def test_weights_that_are_not_finite_are_refused():
    params = params_of()
    params["head"]["kernel"][0, 0] = np.nan
    with pytest.raises(ValueError, match="params must be finite, but head/kernel has nan"):
        prune(params, "magnitude", 0.5, groups=PATHS)


@pytest.mark.oracle
@pytest.mark.parametrize("sparsity", [0.1, 0.37, 0.9])
def test_global_magnitude_pruning_is_that_of_torch(sparsity):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    from torch.nn.utils import prune as peer

    params = params_of()
    kernels = [*params["layers"]["up"]["kernel"], params["head"]["kernel"]]
    linears = [torch.nn.Linear(*kernel.shape, bias=False) for kernel in kernels]
    for linear, kernel in zip(linears, kernels, strict=True):
        linear.weight.data = torch.tensor(kernel.T.copy())
    peer.global_unstructured([(linear, "weight") for linear in linears], peer.L1Unstructured, amount=sparsity)
    ours = prune(params, "magnitude", sparsity, groups=["layers/up/kernel", "head/kernel"]).params
    for kernel, linear in zip([*ours["layers"]["up"]["kernel"], ours["head"]["kernel"]], linears, strict=True):
        np.testing.assert_array_equal(kernel, linear.weight.detach().numpy().T)


@pytest.mark.oracle
@pytest.mark.parametrize("sparsity", [0.1, 0.5])
def test_rows_of_a_head_are_those_of_torchs_structured_pruning(sparsity):
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    from torch.nn.utils import prune as peer

    kernel = params_of()["head"]["kernel"]
    linear = torch.nn.Linear(*kernel.shape, bias=False)
    linear.weight.data = torch.tensor(kernel.T.copy())
    peer.ln_structured(linear, "weight", amount=sparsity, n=1, dim=0)
    ours = prune(params_of(), "magnitude", sparsity, groups="head/kernel", within="rows").params["head"]["kernel"]
    np.testing.assert_array_equal(ours, linear.weight.detach().numpy().T)
