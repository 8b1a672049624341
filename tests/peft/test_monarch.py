"""The Monarch product against its entry-wise form, its algebra and GraLoRA."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from zsml_jax.peft import monarch
from zsml_jax.peft.monarch import Monarch, MonarchShape

# The last one has more features than a dense second factor is made for.
SHAPES = [(8, 12, 2, 2), (12, 8, 4, 1), (12, 12, 4, 6), (10, 7, 3, 2), (9, 20, 4, 3), (5, 6, 1, 3), (8, 10, 4, 20)]


def factors_of(shape, seed=0):
    rng = np.random.default_rng(seed)
    return Monarch(rng.normal(size=shape.first).astype(np.float32), rng.normal(size=shape.second).astype(np.float32))


def entry_wise(factors, shape):
    """W by its definition, one entry at a time; the kernel is its transpose."""
    blocks, rank, width = shape.first
    kernel = np.zeros((blocks * width, blocks * shape.output_width))
    for k in range(blocks):
        for q in range(rank):
            l, slot = (k * rank + q) % blocks, (k * rank + q) // blocks
            for i in range(width):
                for s in range(shape.output_width):
                    kernel[k * width + i, s * blocks + l] += factors.second[l, s, slot] * factors.first[k, q, i]
    return kernel[: shape.inputs, : shape.outputs]


@pytest.mark.parametrize("sizes", SHAPES)
def test_the_product_and_its_dense_form_are_the_definition(sizes):
    shape = MonarchShape(*sizes)
    factors = factors_of(shape)
    kernel = entry_wise(factors, shape)
    np.testing.assert_allclose(monarch.delta_weight(factors, shape), kernel, atol=1e-5)
    x = np.random.default_rng(1).normal(size=(2, 3, shape.inputs)).astype(np.float32)
    np.testing.assert_allclose(monarch.product(x, factors, shape.outputs), x @ kernel, atol=1e-4)


def test_one_block_is_lora():
    shape = MonarchShape(6, 5, 1, 2)
    factors = factors_of(shape)
    down, up = factors.first[0], factors.second[0]  # LoRA's A and B
    np.testing.assert_allclose(monarch.delta_weight(factors, shape), (up @ down).T, atol=1e-6)


def test_fresh_factors_change_nothing_and_lie_within_one_over_the_root_of_the_block(key):
    shape = MonarchShape(400, 30, 4, 2)
    factors = monarch.init(shape, key=key)
    assert not np.any(monarch.product(np.ones((1, 400), np.float32), factors))
    largest = float(np.abs(factors.first).max())
    assert 0.095 < largest <= 0.1


@pytest.mark.parametrize("blocks", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("block_rank", [1, 2, 4, 8])
def test_ranks_and_density_are_those_of_the_sub_blocks(blocks, block_rank):
    shape = MonarchShape(64, 64, blocks, block_rank)
    kernel = entry_wise_fast(factors_of(shape), shape)
    ranks = np.zeros((blocks, blocks), int)
    for l in range(blocks):
        for k in range(blocks):
            part = kernel[k * shape.input_width : (k + 1) * shape.input_width, l::blocks]
            ranks[l, k] = np.linalg.matrix_rank(part, tol=1e-4)
    width = min(shape.input_width, shape.output_width)
    np.testing.assert_array_equal(ranks, np.minimum(monarch.sub_block_ranks(blocks, block_rank), width))
    assert shape.density == np.mean(kernel != 0) == min(1, block_rank / blocks)
    if block_rank <= width:
        assert np.linalg.matrix_rank(kernel, tol=1e-4) == shape.rank == blocks * block_rank
    assert shape.parameters == block_rank * 128


def entry_wise_fast(factors, shape):
    return np.asarray(monarch.product(np.eye(shape.inputs, dtype=np.float32), factors), np.float64)


@pytest.mark.parametrize(
    ("width", "layers", "targets", "block_rank", "parameters"),
    [(1024, 24, 3, 1, 147_456), (1024, 24, 3, 4, 589_824), (4096, 32, 3, 4, 3_145_728), (4096, 32, 3, 16, 12_582_912)],
)
def test_the_published_numbers_of_parameters(width, layers, targets, block_rank, parameters):
    assert MonarchShape(width, width, 4, block_rank).parameters * layers * targets == parameters


def test_all_linears_of_llama_cost_what_was_published():
    attention, mlp = MonarchShape(4096, 4096, 4, 4), (MonarchShape(4096, 11008, 4, 4), MonarchShape(11008, 4096, 4, 4))
    assert 32 * (4 * attention.parameters + 2 * mlp[0].parameters + mlp[1].parameters) == 9_994_240


@pytest.mark.parametrize("sizes", [(8, 12, 2, 2), (12, 8, 4, 1), (12, 12, 4, 6), (16, 8, 2, 3)])
def test_the_error_of_a_projection_is_the_tails_of_the_singular_values(sizes):
    shape = MonarchShape(*sizes)
    kernel = np.random.default_rng(3).normal(size=sizes[:2]).astype(np.float32)
    nearest = monarch.delta_weight(monarch.project(kernel, blocks=sizes[2], block_rank=sizes[3]), shape)
    ranks, squared = monarch.sub_block_ranks(sizes[2], sizes[3]), 0.0
    for (l, k), rank in np.ndenumerate(ranks):
        part = kernel[k * shape.input_width : (k + 1) * shape.input_width, l :: sizes[2]]
        squared += np.sum(np.linalg.svd(part, compute_uv=False)[rank:] ** 2)
    np.testing.assert_allclose(np.linalg.norm(kernel - nearest), np.sqrt(squared), rtol=1e-4)


@pytest.mark.parametrize("sizes", SHAPES)
def test_a_product_is_its_own_projection(sizes):
    shape = MonarchShape(*sizes)
    kernel = monarch.delta_weight(factors_of(shape), shape)
    again = monarch.delta_weight(monarch.project(kernel, blocks=sizes[2], block_rank=sizes[3]), shape)
    np.testing.assert_allclose(again, kernel, atol=2e-5)


def test_neither_more_nor_lora_contains_the_other_at_equal_cost():
    rng = np.random.default_rng(0)
    low = lambda rank: (rng.normal(size=(256, rank)) @ rng.normal(size=(rank, 256))).astype(np.float32)
    error = lambda w, r: (
        np.linalg.norm(
            w - monarch.delta_weight(monarch.project(w, blocks=4, block_rank=r), MonarchShape(256, 256, 4, r))
        )
        / np.linalg.norm(w)
    )
    # LoRA of rank 16 costs what MoRe (4, 16) costs and is exact on rank 16; both are exact on rank 4.
    assert error(low(16), 16) == pytest.approx(0.70, abs=0.02)
    assert error(low(4), 16) < 1e-4
    # A product of rank 64 is exact for MoRe (4, 16), and far from any matrix of rank 16.
    product = np.asarray(monarch.delta_weight(factors_of(MonarchShape(256, 256, 4, 16)), MonarchShape(256, 256, 4, 16)))
    assert error(product, 16) < 1e-4
    sigma = np.linalg.svd(product, compute_uv=False)
    assert np.sqrt(np.sum(sigma[16:] ** 2) / np.sum(sigma**2)) > 0.5
    # On a matrix without structure they tie.
    noise = rng.normal(size=(256, 256)).astype(np.float32)
    sigma = np.linalg.svd(noise, compute_uv=False)
    assert error(noise, 16) == pytest.approx(np.sqrt(np.sum(sigma[16:] ** 2) / np.sum(sigma**2)), abs=0.01)


def test_gralora_and_back_is_the_same_map():
    shape = MonarchShape(12, 16, 2, 4)
    factors = factors_of(shape)
    a, b = monarch.to_gralora(factors)
    x = np.random.default_rng(2).normal(size=(5, 12)).astype(np.float32)
    # GraLoRA by its definition: block k's features in parts l go to block l.
    features = np.einsum("zki,kir->zkr", x.reshape(5, 2, 6), a).reshape(5, 2, 2, 2)
    blocks = np.einsum("zlr,lro->zlo", features.swapaxes(1, 2).reshape(5, 2, 4), b)
    np.testing.assert_allclose(monarch.product(x, factors).reshape(5, 8, 2), blocks.swapaxes(1, 2), atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, monarch.from_gralora(a, b), factors)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10**6))
def test_gradients_are_those_of_the_dense_form(seed):
    shape = MonarchShape(8, 12, 2, 2)
    factors = factors_of(shape, seed)
    x = np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    loss = lambda f, x: jnp.sum(monarch.product(x, f) ** 2)
    dense = lambda f, x: jnp.sum((x @ monarch.delta_weight(f, shape)) ** 2)
    ours, expected = (jax.jit(jax.grad(f, (0, 1)))(factors, x) for f in (loss, dense))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), ours, expected)


def test_vmap_over_stacked_factors_equals_a_loop():
    shape = MonarchShape(8, 12, 2, 2)
    stacked = Monarch(*(np.stack(x) for x in zip(factors_of(shape, 0), factors_of(shape, 1), strict=True)))
    x = np.ones((3, 8), np.float32)
    both = jax.vmap(monarch.product, (None, 0))(x, stacked)
    np.testing.assert_allclose(both[1], monarch.product(x, factors_of(shape, 1)), atol=1e-6)


def test_what_does_not_fit_is_refused(unchecked_types):
    shape = MonarchShape(8, 12, 2, 2)
    factors = factors_of(shape)
    with pytest.raises(ValueError, match="x must have 8 columns, 2 blocks of 4, got 9"):
        monarch.product(np.ones((1, 9)), factors)
    with pytest.raises(ValueError, match=r"second must be \(2, s, 2\)"):
        monarch.product(np.ones((1, 8)), factors._replace(second=factors.second[:1]))
    with pytest.raises(ValueError, match="factors must have the shapes"):
        monarch.delta_weight(factors, MonarchShape(8, 14, 2, 2))
    with pytest.raises(ValueError, match="blocks must divide block_rank, got 2 and 3"):
        monarch.to_gralora(factors_of(MonarchShape(8, 12, 2, 3)))
    with pytest.raises(ValueError, match="blocks must be at most the 8 inputs, got 9"):
        MonarchShape(8, 12, 9, 1)
    with pytest.raises(ValueError, match="block_rank must be at least 1, got 0"):
        MonarchShape(8, 12, 2, 0)


@pytest.mark.oracle
def test_the_layer_of_gralora_gives_the_same_numbers_up_to_the_order_of_its_rows():
    torch = pytest.importorskip("torch", reason="the oracle extra is not installed")
    peft = pytest.importorskip("peft", reason="the oracle extra is not installed")
    model = torch.nn.Sequential(torch.nn.Linear(12, 16, bias=False))
    config = peft.GraloraConfig(r=4, alpha=4, gralora_k=2, target_modules=["0"], init_weights=False)
    layer = peft.get_peft_model(model, config).base_model.model[0]
    a, b = (part["default"].detach().numpy() for part in (layer.gralora_A, layer.gralora_B))
    delta = layer.get_delta_weight("default").detach().numpy().T  # (n, m), output blocks one behind the other
    ours = monarch.delta_weight(monarch.from_gralora(a, b), MonarchShape(12, 16, 2, 4))
    np.testing.assert_allclose(np.reshape(ours, (12, 8, 2)), delta.reshape(12, 2, 8).swapaxes(1, 2), atol=1e-6)
