"""Adapters of several ranks in the arrays of the largest: the same matrices, the same training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax import peft
from zsml_jax.peft import monarch, rank_masks
from zsml_jax.peft.method import LayerShape
from zsml_jax.peft.monarch import Monarch, MonarchShape

SHAPE = LayerShape(12, 8)
SHAPES = {"dense": SHAPE}
X = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)
TARGET = np.random.default_rng(1).normal(size=(16, 8)).astype(np.float32)


def apply_fn(params, x):
    return x @ params["dense"]["kernel"]


def adapter_of(method, arrays):
    layer = peft.AdaptedLayer("dense", SHAPE, (), None, method.without_numbers())
    return peft.Adapter({"dense": arrays}, {}, None, {"alpha": jnp.float32(method.alpha)}, {}, layer.method, (layer,))


def delta(adapter):
    (layer,) = adapter.layers
    return layer.method.delta(SHAPE, adapter.arrays["dense"], adapter.numbers)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def more_in_wide(first, second, blocks, rank, wide):
    """The arrays of rank r where the wide ones have their features, one feature at a time."""
    product = MonarchShape(12, 8, blocks, wide)
    out_first, out_second = np.zeros(product.first, np.float32), np.zeros(product.second, np.float32)
    for k in range(blocks):
        met = [0] * blocks
        for q in range(rank):
            slot, l = divmod(k * rank + q, blocks)
            place = l + blocks * met[l]
            met[l] += 1
            out_first[k, place] = first[k, q]
            out_second[l, :, (k * wide + place) // blocks] = second[l, :, slot]
    return out_first, out_second


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("rank", [1, 2, 3, 5, 8])
def test_each_pair_of_blocks_keeps_the_features_that_the_rank_gives_it(blocks, rank):
    wide = -(-8 // blocks) * blocks
    kept = np.asarray(rank_masks.more_features(blocks, wide, rank)).reshape(blocks, wide // blocks, blocks)
    np.testing.assert_array_equal(kept.sum(axis=1).T, monarch.sub_block_ranks(blocks, rank))


def trained(adapter, cut, steps=5):
    """Adam on a regression, with numbers that make every coordinate count."""
    optimizer = optax.adam(0.05)

    def loss(arrays):
        return jnp.mean((X @ delta(cut(adapter.replace(arrays={"dense": arrays}))) - TARGET) ** 2)

    arrays = adapter.arrays["dense"]
    state = optimizer.init(arrays)
    gradient = jax.jit(jax.grad(loss))
    for _ in range(steps):
        updates, state = optimizer.update(gradient(arrays), state)
        arrays = optax.apply_updates(arrays, updates)
    return np.asarray(delta(cut(adapter.replace(arrays={"dense": arrays}))))


@pytest.mark.slow
@pytest.mark.parametrize(("blocks", "rank"), [(1, 2), (2, 2), (4, 2), (4, 3)])
def test_masked_more_trains_as_more_of_that_rank_does(blocks, rank):
    method = peft.MoRe(blocks=blocks, block_rank=rank, alpha=0.7, scaling="rank")
    wide = rank_masks.widest([method, peft.MoRe(blocks=blocks, block_rank=4, scaling="rank")], SHAPES)
    assert wide.block_rank == 4
    product = MonarchShape(12, 8, blocks, rank)
    factors = Monarch(draw(product.first), draw(product.second, 1))
    alone = adapter_of(method, factors._asdict())
    first, second = more_in_wide(*factors, blocks, rank, 4)
    # Noise where the mask is, which must not matter.
    noise = np.where(rank_masks.more_features(blocks, 4, rank)[..., None], 0, draw(first.shape, 2))
    inside = adapter_of(wide, {"first": jnp.asarray(first + noise), "second": jnp.asarray(second)})
    cut = lambda adapter: rank_masks.narrow(adapter, rank, rank_masks.scale_in(method, wide))
    np.testing.assert_allclose(delta(cut(inside)), delta(alone), atol=1e-5)
    np.testing.assert_allclose(trained(inside, cut), trained(alone, lambda a: a), atol=1e-4)


@pytest.mark.parametrize("scaling", ["rank", "root_rank", "none"])
def test_masked_lora_trains_as_lora_of_that_rank_does(scaling):
    method = peft.LoRA(rank=2, alpha=3.0, scaling=scaling)
    wide = rank_masks.widest([method, peft.LoRA(rank=5, scaling=scaling)], SHAPES)
    a, b = draw((12, 5)), draw((5, 8), 1)
    inside, alone = adapter_of(wide, {"a": a, "b": b}), adapter_of(method, {"a": a[:, :2], "b": b[:2]})
    cut = lambda adapter: rank_masks.narrow(adapter, 2, rank_masks.scale_in(method, wide))
    np.testing.assert_allclose(trained(inside, cut), trained(alone, lambda x: x), atol=1e-4)


def test_a_fresh_lora_begins_where_that_of_the_rank_alone_does(key):
    kernel = np.zeros((12, 8), np.float32)
    wide, narrow = (peft.LoRA(rank=r).init(SHAPE, kernel, key=key)["a"] for r in (6, 2))
    np.testing.assert_array_equal(wide[:, :2], narrow)


def test_what_one_set_of_arrays_cannot_hold_has_no_widest_method():
    assert rank_masks.widest([peft.VeRA(rank=2), peft.VeRA(rank=3)], SHAPES) is None
    assert rank_masks.widest([peft.MoRe(blocks=2), peft.MoRe(blocks=4)], SHAPES) is None
    assert rank_masks.widest([peft.LoRA(ranks={"dense": 1})], SHAPES) is None
    assert rank_masks.widest([peft.LoRA(rank=2), peft.DoRA(rank=2)], SHAPES) is None
    # Blocks of width 2 cover 9 inputs with 5 of them.
    assert rank_masks.widest([peft.MoRe(blocks=7)], {"dense": LayerShape(9, 9)}) is None
    with pytest.raises(ValueError, match="widest_rank must be a multiple of the 4 blocks, got 6"):
        rank_masks.more_features(4, 6, 2)
