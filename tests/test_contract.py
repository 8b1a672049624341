"""What every method promises, checked over the tables of calls in tests/contract.

A case is a pure function of one array. Under jit and vmap it gives what it gives without, its gradient is finite and
that of finite differences, it repeats itself bit by bit, it is traced once for each shape, and its output is a pytree
that survives jit and a checkpoint. The cases of the wings other than zero-shot are slow.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.contract import autolabel, compression, curvature, peft, weaksup, zeroshot
from tests.contract.zeroshot import K, probs, scores
from tests.zeroshot.matmul_precision import products_of_low_precision
from zsml_jax.train import checkpoint
from zsml_jax.zeroshot import loki

WINGS = (autolabel, compression, curvature, peft, weaksup)
FAST = zeroshot.CASES
SLOW = [case for wing in WINGS for case in wing.CASES]
HOST_CASES = zeroshot.HOST_CASES


def each(fast, slow=()):
    marked = [pytest.param(case, id=case.name, marks=pytest.mark.slow) for case in slow]
    return pytest.mark.parametrize("case", [*(pytest.param(case, id=case.name) for case in fast), *marked])


def assert_same(actual, desired, tolerance):
    """Equal structure, shapes and dtypes; classes and truth values equal, floats up to the solvers' tolerance.

    How many iterations a solver took is no result: compiled sums round differently, and a step more may be needed.
    """
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, desired)
    leaves = zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(desired), strict=True)
    for (path, a), b in leaves:
        if "iterations" in jax.tree_util.keystr(path):
            continue
        if jnp.issubdtype(jnp.result_type(a), jnp.floating):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 2)
        else:
            np.testing.assert_array_equal(a, b)


@each(FAST, SLOW)
def test_jit_equals_eager_and_is_traced_once(case):
    traces = []

    @jax.jit
    def counted(x):
        traces.append(x)
        return case.call(x)

    first, second = counted(case.inputs(0)), counted(case.inputs(1))
    assert len(traces) == 1
    chex.assert_trees_all_equal_shapes_and_dtypes(first, second)
    assert_same(first, case.call(case.inputs(0)), case.tolerance)


@each(FAST, SLOW)
def test_vmap_equals_a_loop(case):
    xs = [case.inputs(seed) for seed in range(3)]
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(case.call, xs))
    assert_same(jax.jit(jax.vmap(case.call))(jnp.stack(xs)), looped, case.tolerance)


@each([case for case in FAST if case.smooth], [case for case in SLOW if case.smooth])
def test_gradients_are_finite_and_those_of_differences(case):
    x = case.inputs(0)
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda x: case.smooth(case.call(x)), x)
    weights = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    direction = jnp.asarray(rng.normal(size=x.shape), x.dtype)

    @jax.jit
    def value(x):
        return sum(jax.tree.leaves(jax.tree.map(lambda a, w: jnp.sum(a * w), case.smooth(case.call(x)), weights)))

    slope = jax.jit(jax.grad(value))(x)
    assert jnp.isfinite(slope).all()
    assert jnp.any(slope != 0)
    step = 1e-2
    difference = (value(x + step * direction) - value(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), difference, rtol=2e-2, atol=2e-3)


@each(FAST + HOST_CASES, SLOW)
def test_a_second_call_gives_the_same_bits(case):
    chex.assert_trees_all_equal(case.call(case.inputs(0)), case.call(case.inputs(0)))


@pytest.mark.parametrize(
    "draw",
    [
        *(pytest.param(draw, id=name) for name, draw in zeroshot.SEEDED.items()),
        *(pytest.param(draw, id=name, marks=pytest.mark.slow) for wing in WINGS for name, draw in wing.SEEDED.items()),
    ],
)
def test_the_key_alone_decides_what_is_drawn(draw):
    first = draw(jax.random.key(1))
    chex.assert_trees_all_equal(first, draw(jax.random.key(1)))
    others = zip(jax.tree.leaves(first), jax.tree.leaves(draw(jax.random.key(2))), strict=True)
    assert any(bool(jnp.any(a != b)) for a, b in others)


@pytest.mark.parametrize("cases", [FAST + HOST_CASES, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["fast", "slow"])
def test_outputs_of_all_methods_survive_jit_and_a_checkpoint(cases, tmp_path):
    outputs = {case.name: case.call(case.inputs(0)) for case in cases}
    chex.assert_trees_all_equal(jax.jit(lambda tree: tree)(outputs), outputs)
    checkpoint.save(tmp_path / "outputs", outputs)
    restored = checkpoint.restore(tmp_path / "outputs", like=jax.tree.map(jnp.zeros_like, outputs))
    assert jax.tree.structure(restored) == jax.tree.structure(outputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, outputs)
    chex.assert_trees_all_equal(restored, outputs)


@pytest.mark.parametrize(
    "metric", [zeroshot.TREE, zeroshot.EUCLIDEAN, zeroshot.MATRIX], ids=lambda metric: type(metric).__name__
)
def test_metric_spaces_survive_jit_and_a_checkpoint(metric, tmp_path):
    checkpoint.save(tmp_path / "metric", metric)
    observed = metric.classes[:K]
    desired = loki.decode(probs(0), metric, observed=observed)
    for copy in (jax.jit(lambda tree: tree)(metric), checkpoint.restore(tmp_path / "metric", like=metric)):
        assert type(copy) is type(metric)
        assert copy.classes == metric.classes
        np.testing.assert_array_equal(loki.decode(probs(0), copy, observed=observed), desired)


@each([case for case in HOST_CASES if case.name.startswith("otter")])
def test_exact_solvers_refuse_to_be_traced(case):
    with pytest.raises(ValueError, match="epsilon = 0 is solved outside of jit"):
        jax.jit(case.call)(scores(0))


@each(FAST, [case for case in SLOW if not case.is_network])
def test_no_matrix_product_is_left_to_an_accelerators_low_precision(case):
    function = jax.jacrev(lambda x: case.smooth(case.call(x))) if case.smooth else case.call
    assert products_of_low_precision(function, case.inputs(0))[1] == 0
