import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from zsml_jax.train import optimizer, sharding, sharding_tables
from zsml_jax.train.state import init_state


def float32(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def llama_8b():
    """Llama-3.1-8B: 32 layers of width 4,096, 32 heads over 8 of keys and values, vocabulary 128,256, untied."""
    layers, width, keys, hidden, vocabulary = 32, 4096, 1024, 14336, 128256
    attention = {
        name: {"kernel": float32(layers, width, columns)}
        for name, columns in {"query": width, "key": keys, "value": keys, "out": width}.items()
    }
    mlp = {"up": {"kernel": float32(layers, width, hidden)}, "gate": {"kernel": float32(layers, width, hidden)}}
    mlp["down"] = {"kernel": float32(layers, hidden, width)}
    norms = {name: {"scale": float32(layers, width)} for name in ("attention_norm", "mlp_norm")}
    return {
        "embeddings": {"word": {"embedding": float32(vocabulary, width)}},
        "layers": {"attention": attention, "mlp": mlp, **norms},
        "norm": {"scale": float32(width)},
        "head": {"kernel": float32(width, vocabulary)},
    }


def bytes_per_device(tree, shardings):
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)) * x.dtype.itemsize, tree, shardings)
    return sum(jax.tree.leaves(sizes))


@pytest.mark.parametrize(("data", "model"), [(8, 8), (64, 1), (1, 8)])
def test_an_eight_billion_parameter_llama_is_divided_evenly_but_for_its_norms(data, model):
    mesh = AbstractMesh((data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params = llama_8b()
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    assert total == 8_030_261_248  # as published
    norms = 65 * 4096
    shardings = sharding.partition(params, mesh, sharding_tables.DECODER)
    assert bytes_per_device(params, shardings) == 4 * ((total - norms) // (data * model) + norms)


def test_adams_moments_lie_as_their_parameters_so_that_a_device_holds_three_parts():
    mesh = AbstractMesh((8, 8), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    params = llama_8b()
    made = optimizer.by_path([(".*", optimizer.adamw(1e-4))], clip_norm=1.0)
    state = jax.eval_shape(lambda params, key: init_state(params, made, key=key), params, jax.random.key(0))
    shardings = sharding.state_shardings(state, mesh, sharding_tables.DECODER)
    one = bytes_per_device(params, shardings.params)
    moments = bytes_per_device(state.opt_state, shardings.opt_state)
    assert 2 * one <= moments < 2 * one + 1000


def test_biases_and_tied_heads_of_the_older_families_are_covered():
    bias = lambda *names: {name: {"kernel": float32(2, 8, 8), "bias": float32(2, 8)} for name in names}
    norms = {name: {"scale": float32(2, 8), "bias": float32(2, 8)} for name in ("attention_norm", "mlp_norm")}
    params = {
        "embeddings": {"word": {"embedding": float32(16, 8)}, "position": {"embedding": float32(10, 8)}},
        "layers": {"attention": bias("query", "key", "value", "out"), "mlp": bias("up", "down"), **norms},
        "norm": {"scale": float32(8), "bias": float32(8)},
    }
    mesh = sharding.make_mesh("data:2,model:2")
    placed = sharding.partition(params, mesh, sharding_tables.DECODER)
    assert placed["layers"]["mlp"]["up"]["bias"].shard_shape((2, 8)) == (2, 4)
    assert placed["layers"]["mlp"]["down"]["bias"].is_fully_replicated
