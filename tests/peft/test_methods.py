"""What each method adds to a kernel, against closed forms in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from tests.peft.conftest import randomised
from tests.transform.stacks import Scanned, apply_of, random_params
from zsml_jax import peft
from zsml_jax.peft.method import LayerShape
from zsml_jax.peft.oft import butterfly_order, cayley

RNG = np.random.default_rng(0)
SHAPE = LayerShape(8, 6)
KERNEL, BIAS = RNG.normal(size=(8, 6)).astype(np.float32), RNG.normal(size=6).astype(np.float32)
X = RNG.normal(size=(5, 8)).astype(np.float32)


def arrays_of(method):
    arrays = method.init(SHAPE, KERNEL, key=jax.random.key(0))
    rng = np.random.default_rng(1)  # the same for each test, in whatever order they run
    return {name: leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for name, leaf in arrays.items()}


def shared_of(method):
    return {**method.shared([SHAPE]), **method.numbers()}


def outcome(method, arrays):
    """The layer's output by the method's two steps."""
    shared = shared_of(method)
    y = method.before(X, arrays, shared) @ KERNEL + BIAS
    extra = method.extra(X, y, KERNEL, BIAS, arrays, shared)
    return y if extra is None else y + extra


def numpy_kernel(method, arrays):
    """The kernel and the bias by the papers' formulas."""
    match method:
        case peft.DoRA():
            sum_ = KERNEL + method.alpha / method.rank * arrays["a"] @ arrays["b"]
            return arrays["magnitude"] * sum_ / np.sqrt(np.sum(sum_**2, axis=0)), BIAS
        case peft.LoRA():
            factor = method.alpha / {"rank": method.rank, "root_rank": method.rank**0.5, "none": 1}[method.scaling]
            return KERNEL + factor * arrays["a"] @ arrays["b"], BIAS
        case peft.VeRA():
            shared = method.shared([SHAPE])
            a, b = shared["projection_a"], shared["projection_b"]
            return KERNEL + a @ np.diag(arrays["d"]) @ b @ np.diag(arrays["b"]), BIAS
        case peft.IA3(feedforward=()):
            return KERNEL * arrays["scale"], BIAS * arrays["scale"]
        case peft.IA3():
            return np.diag(arrays["scale"]) @ KERNEL, BIAS
        case peft.OFT():
            skews = np.zeros((len(arrays["upper"]), method.block_size, method.block_size))
            skews[:, *np.triu_indices(method.block_size, 1)] = arrays["upper"]
            skews -= skews.swapaxes(1, 2)
            turns = [
                np.linalg.inv(np.eye(method.block_size) - skew) @ (np.eye(method.block_size) + skew) for skew in skews
            ]
            return scipy.linalg.block_diag(*turns) @ KERNEL, BIAS


METHODS = {
    "lora": peft.LoRA(rank=2, alpha=3),
    "rslora": peft.LoRA(rank=4, alpha=3, scaling="root_rank"),
    "dora": peft.DoRA(rank=2, alpha=3),
    "vera": peft.VeRA(rank=3),
    "ia3 on the output": peft.IA3(targets="up").at("up"),
    "ia3 on the input": peft.IA3(targets="down").at("down"),
    "oft": peft.OFT(block_size=4, cayley_terms=None),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_its_formula_merged_and_not(name):
    method = METHODS[name]
    arrays = arrays_of(method)
    kernel, bias = numpy_kernel(method, arrays)
    merged_kernel, merged_bias = method.merged(jnp.asarray(KERNEL), jnp.asarray(BIAS), arrays, shared_of(method))
    np.testing.assert_allclose(merged_kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(merged_bias, bias, atol=1e-6)
    np.testing.assert_allclose(outcome(method, arrays), X @ kernel + bias, atol=2e-5)


@pytest.mark.parametrize("method", [peft.MoRe(blocks=2, block_rank=4, alpha=2), METHODS["lora"], METHODS["vera"]])
def test_low_rank_methods_are_the_product_of_two_factors(method):
    arrays = arrays_of(method)
    down, up = method.low_rank(SHAPE, arrays, shared_of(method))
    delta = method.merged(jnp.asarray(KERNEL), None, arrays, shared_of(method))[0] - KERNEL
    np.testing.assert_allclose(down @ up, delta, atol=1e-5)
    assert down.shape[1] == (8 if isinstance(method, peft.MoRe) else method.rank)


@pytest.mark.slow
def test_one_block_of_more_is_lora_exactly():
    """Also where it begins, and in its gradients: the same random numbers, the same sums in the same order."""
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    params, apply_fn = random_params(Scanned(), x), apply_of(Scanned())
    more, lora = (
        peft.init(apply_fn, params, config, x, key=jax.random.key(3))
        for config in (
            peft.MoRe(blocks=1, block_rank=2, alpha=3, scaling="rank"),
            peft.LoRA(rank=2, alpha=3),
        )
    )
    as_lora = lambda arrays: {
        path: {"a": own["first"][:, 0].swapaxes(1, 2), "b": own["second"][:, 0].swapaxes(1, 2)}
        for path, own in arrays.items()
    }
    jax.tree.map(np.testing.assert_array_equal, as_lora(more.arrays), lora.arrays)
    more = randomised(more)
    lora = lora.replace(arrays=as_lora(more.arrays))
    loss = jax.jit(jax.value_and_grad(lambda adapter: jnp.sum(peft.apply_fn(apply_fn)(adapter, params, x) ** 2)))
    (ours, gradient), (expected, of_lora) = loss(more), loss(lora)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), as_lora(gradient.arrays), of_lora.arrays
    )
    merged = [peft.merge_params(params, adapter) for adapter in (more, lora)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *merged)


def test_rotations_keep_lengths_and_the_series_comes_near_them():
    skew = 0.1 * np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    skew = skew - skew.swapaxes(1, 2)
    turns = cayley(jnp.asarray(skew))
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-5)
    arrays = {"upper": skew[:, *np.triu_indices(4, 1)][:2]}
    exact, *series = (peft.OFT(block_size=4, cayley_terms=terms).before(X, arrays, {}) for terms in (None, 5, 12))
    np.testing.assert_allclose(np.linalg.norm(exact, axis=1), np.linalg.norm(X, axis=1), rtol=1e-5)
    errors = [np.abs(turned - exact).max() for turned in series]
    assert errors[1] < 1e-4 and errors[1] < 0.1 * errors[0] < 0.1


def test_a_butterfly_of_all_factors_reaches_every_input():
    """Each factor mixes blocks of two; three of them mix all eight inputs, two only four."""
    assert butterfly_order(8, 2, 0).tolist() == list(range(8))
    assert butterfly_order(8, 2, 2).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    for factors, reached in ((1, 2), (2, 4), (3, 8)):
        method = peft.BOFT(block_size=2, factors=factors)
        arrays = arrays_of(method)
        turned = method.before(np.eye(8, dtype=np.float32), arrays, {})
        assert (np.count_nonzero(np.abs(turned) > 1e-6, axis=1) == reached).all()
        np.testing.assert_allclose(turned @ turned.T, np.eye(8), atol=1e-5)


@pytest.mark.slow
def test_the_matrices_of_vera_depend_on_their_seed_only():
    shapes = [LayerShape(8, 6), LayerShape(4, 10)]
    one, same, other = (peft.VeRA(rank=3, projection_seed=seed).shared(shapes) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert one["projection_a"].shape == (8, 3) and one["projection_b"].shape == (3, 10)
    assert np.any(one["projection_a"] != other["projection_a"])
