import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from zsml_jax.train import activations, fit, sharding


def division(fn, x, mesh, axes="data"):
    with activations.divided(mesh, axes):
        return jax.jit(fn)(x).sharding.spec


def test_examples_are_divided_in_a_block_and_left_alone_outside():
    mesh, other = sharding.make_mesh("data:4,model:1"), sharding.make_mesh("data:2,model:2")
    x = np.zeros((8, 4, 2), np.float32)
    widths = sharding.shard(x, jax.sharding.NamedSharding(mesh, PartitionSpec(None, None, "model")))
    keep = jax.jit(activations.keep_divided)
    assert keep(widths).sharding == widths.sharding
    assert division(keep, widths, mesh) == PartitionSpec("data")
    # The same jitted function is traced again in another block.
    assert division(keep, x, other) == PartitionSpec("data")
    assert division(keep, x, other, ("data", "model")) == PartitionSpec(("data", "model"))
    assert keep(widths).sharding == widths.sharding


def test_examples_that_cannot_be_divided_are_left_alone_and_numbers_never_change():
    mesh = sharding.make_mesh("data:4,model:1")
    x = np.arange(8.0).reshape(4, 2)
    with activations.divided(mesh):
        assert len(jax.jit(activations.keep_divided)(np.zeros((6, 2))).devices()) == 1
        np.testing.assert_array_equal(jax.jit(activations.keep_divided)(x), x)
        np.testing.assert_array_equal(jax.grad(lambda x: (activations.keep_divided(x) ** 2).sum())(x), 2 * x)


def test_inside_of_shard_map_nothing_is_constrained():
    mesh = sharding.make_mesh("data:4,model:1")
    mapped = jax.shard_map(
        activations.keep_divided, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data")
    )
    with activations.divided(mesh):
        np.testing.assert_array_equal(jax.jit(mapped)(np.arange(16.0)), np.arange(16.0))


def test_axes_that_the_mesh_has_not_are_refused():
    with (
        pytest.raises(ValueError, match=r"axes must be among the mesh's \('data',\), got \['rows'\]"),
        activations.divided(sharding.make_mesh("data:-1"), "rows"),
    ):
        pass


def test_fit_traces_the_loss_with_its_batch_axes(problem):
    seen = []

    def loss(params, batch, key):
        x = activations.keep_divided(jnp.asarray(batch["x"]))
        jax.debug.inspect_array_sharding(x, callback=seen.append)
        return problem.loss(params, {**batch, "x": x}, key)

    mesh = sharding.make_mesh("data:2,model:2")
    options = {"optimizer": problem.optimizer(), "key": jax.random.key(0), "show_progress": False}
    fit(loss, problem.params, problem.batches(), steps=1, mesh=mesh, batch_axes=("data", "model"), **options)
    assert {sharding.shard_shape((8, 4)) for sharding in seen} == {(2, 4)}
