"""Each family's table covers its parameters, gives the program that it promises, and leaves the numbers as they are."""

import collections
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from tests.train import zoo
from zsml_jax import transform
from zsml_jax.models.quantized import quantize
from zsml_jax.train import activations, init_state, make_step, optimizer, parameter_paths, sharding, sharding_tables
from zsml_jax.train.sharding import REPLICATED

WAYS = {"data": "data:4,model:1", "fsdp": "data:4,model:1", "tensor": "data:1,model:4", "both": "data:2,model:2"}
#: What the fast suite runs; the others are slow.
FAST = {("llama", "both")}
CASES = [
    pytest.param(name, way, marks=[] if (name, way) in FAST else pytest.mark.slow, id=f"{name} {way}")
    for name in zoo.TINY
    for way in (("both",) if name in ("albert", "resnet") else WAYS)
]

#: What may be copied to every device.
SMALL = re.compile(".*(norm/(scale|bias)|bias|mixer/D|relative/bucket/embedding|class|logit_scale)")


def by_path(tree):
    return dict(zip(parameter_paths.paths(tree), jax.tree.leaves(tree), strict=True))


def abstract_mesh(data, model):
    return AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def bytes_per_device(tree, shardings):
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
    return sum(jax.tree.leaves(sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.FULL)
def test_the_table_covers_a_published_model_and_divides_it_over_large_meshes(name):
    module, table = zoo.FULL[name]
    params = zoo.shapes(module)
    sharding.partition(params, abstract_mesh(1, 8), table)
    for data, model in ((8, 8), (64, 1)):
        shardings = sharding.partition(params, abstract_mesh(data, model), table)
        copied = [path for path, s in by_path(shardings).items() if s.is_fully_replicated]
        assert table is sharding_tables.VISION or all(SMALL.fullmatch(path) for path in copied)


@pytest.mark.slow
def test_no_rule_of_a_table_is_idle():
    used = collections.defaultdict(set)
    for module, table in zoo.FULL.values():
        used[table] |= set(jax.tree.leaves(parameter_paths.match(table, zoo.shapes(module))))
    assert set(used) == {
        getattr(sharding_tables, name) for name in ("DECODER", "MAMBA", "BERT", "T5", "CLIP", "VISION")
    }
    idle = [table[i][0] for table, numbers in used.items() for i in range(len(table)) if i not in numbers]
    # Those of the arrays of quantised kernels are for models that have such.
    assert [pattern for pattern in idle if not pattern.endswith(("/(codes|scale|zero)", "/input_scale"))] == []


@pytest.mark.parametrize("group", ["channel", 128])
def test_the_arrays_of_quantised_kernels_are_divided_as_the_kernels_are(group):
    shapes = zoo.shapes(zoo.FULL["llama-3.1-8b"][0])
    options = {"format": "int4", "group": group, "symmetric": False}
    small = lambda params: transform.update(params, "**/kernel", lambda kernel, _: quantize(kernel, **options))
    params = jax.eval_shape(small, shapes)
    shardings = by_path(sharding.partition(params, abstract_mesh(4, 8), sharding_tables.DECODER))
    both, outputs = PartitionSpec(None, "data", "model"), PartitionSpec(None, None, "model")
    assert shardings["layers/mlp/up/kernel/codes"].spec == both
    assert shardings["layers/mlp/up/kernel/scale"].spec == (outputs if group == "channel" else both)
    assert shardings["layers/mlp/down/kernel/codes"].spec == PartitionSpec(None, "model", "data")
    assert shardings["layers/mlp/down/kernel/zero"].spec == (
        PartitionSpec(None, None, "data") if group == "channel" else PartitionSpec(None, "model", "data")
    )


@pytest.mark.parametrize(("data", "model"), [(8, 8), (64, 1), (1, 8)])
def test_an_eight_billion_parameter_llama_is_divided_evenly_but_for_its_norms(data, model):
    params = zoo.shapes(zoo.FULL["llama-3.1-8b"][0])
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total == 8_030_261_248  # as published
    norms = 65 * 4096
    shardings = sharding.partition(params, abstract_mesh(data, model), sharding_tables.DECODER)
    assert bytes_per_device(params, shardings) == 4 * ((total - norms) // (data * model) + norms)


def test_adams_moments_lie_as_their_parameters_so_that_a_device_holds_three_parts():
    params = zoo.shapes(zoo.FULL["llama-3.1-8b"][0])
    made = optimizer.by_path([(".*", optimizer.adamw(1e-4))], clip_norm=1.0)
    state = jax.eval_shape(lambda params, key: init_state(params, made, key=key), params, jax.random.key(0))
    shardings = sharding.state_shardings(state, abstract_mesh(8, 8), sharding_tables.DECODER)
    one = bytes_per_device(params, shardings.params)
    moments = bytes_per_device(state.opt_state, shardings.opt_state)
    assert 2 * one <= moments < 2 * one + 1000


@pytest.fixture(scope="module")
def single():
    """The losses and the parameters of two steps on one device, by family."""
    done = {}

    def run(name):
        if name not in done:
            done[name] = two_steps(name, "data:1,model:1", REPLICATED, devices=jax.devices()[:1])
        return done[name]

    return run


def two_steps(name, axes, rules, **options):
    tiny = zoo.TINY[name]
    mesh = sharding.make_mesh(axes, **options)
    state = init_state(jax.tree.map(jnp.asarray, zoo.draw(tiny.module)), optax.sgd(0.1), key=jax.random.key(0))
    state = sharding.shard_state(state, mesh, rules)
    placed = jax.tree.map(lambda x: x.sharding, state)
    quick = {"xla_backend_optimization_level": 0}  # compiles in half the time
    step = jax.jit(make_step(tiny.loss, optax.sgd(0.1)), out_shardings=(placed, None), compiler_options=quick)
    batch = sharding.shard_batch(tiny.batch, mesh)
    losses = []
    with activations.divided(mesh):
        for _ in range(2):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state.params)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), CASES)
def test_a_divided_model_has_the_loss_and_the_step_of_one_device(name, way, single):
    table = REPLICATED if way == "data" else zoo.TINY[name].table
    losses, params = two_steps(name, WAYS[way], table)
    expected_losses, expected_params = single(name)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-5)
    assert expected_losses[1] < expected_losses[0]
    chex.assert_trees_all_close(params, expected_params, atol=1e-5)


def forward_program(name, axes):
    """The compiled forward pass, as text."""
    tiny = zoo.TINY[name]
    mesh = sharding.make_mesh(axes)
    shapes = zoo.shapes(tiny.module)
    params = sharding.abstract(shapes, sharding.partition(shapes, mesh, tiny.table))
    batch = sharding.abstract(sharding.shard_batch(tiny.batch, mesh))
    with activations.divided(mesh):
        return jax.jit(lambda p, b: tiny.loss(p, b, None)).lower(params, batch).compile().as_text()


def collectives(name, axes):
    """The kinds of messages between devices in the loop over layers, those of one layer."""
    kinds = r"= \S+ (all-[a-z-]+|collective-permute|reduce-scatter)\(.*op_name=\"[^\"]*/while/body/"
    return collections.Counter(re.findall(kinds, forward_program(name, axes)))


def test_tensor_parallelism_has_one_sum_over_devices_for_each_block():
    assert collectives("gpt2", "data:1,model:4") == {"all-reduce": 2}


def test_fully_sharded_data_parallelism_gathers_each_kernel_and_never_sums_activations():
    # query, key, value, out, up, down
    assert collectives("gpt2", "data:4,model:1") == {"all-gather": 6}


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.TINY)
def test_fully_sharded_models_of_all_families_sum_nothing_but_the_loss_over_devices(name):
    summed = re.findall(r"= (.*) all-reduce\(", forward_program(name, "data:4,model:1"))
    assert [shapes for shapes in summed if re.search(r"\[\d+,", shapes)] == []


def test_an_unknown_model_type_is_told_with_the_nearest():
    with pytest.raises(ValueError, match=r"no sharding table for the model type 'gpt-2'. Did you mean 'gpt2'"):
        sharding_tables.rules_for("gpt-2")
