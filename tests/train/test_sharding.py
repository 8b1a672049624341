"""Four CPU devices give the losses of one, whichever way parameters and examples are divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from zsml_jax import data
from zsml_jax.train import Checkpointer, fit, init_state, make_step, optimizer, sharding
from zsml_jax.train.sharding import REPLICATED, Fsdp

P = PartitionSpec


def transformer_loss(params, batch, key):
    """One head of attention and an MLP in each of two scanned layers, over a tied embedding."""
    x_BxTxD = params["embed"][batch["tokens"]]
    causal_TxT = jnp.tril(jnp.ones((x_BxTxD.shape[1],) * 2, bool))

    def layer(x_BxTxD, p):
        q, k, v = (x_BxTxD @ p["attention"][name]["kernel"] for name in ("query", "key", "value"))
        scores_BxTxT = jnp.where(causal_TxT, q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5, -1e9)
        x_BxTxD = x_BxTxD + jax.nn.softmax(scores_BxTxT) @ v @ p["attention"]["out"]["kernel"]
        h_BxTxF = jax.nn.gelu(x_BxTxD @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"])
        return x_BxTxD + h_BxTxF @ p["mlp"]["down"]["kernel"], None

    x_BxTxD, _ = jax.lax.scan(layer, x_BxTxD, params["layers"])
    logits_BxTxV = (x_BxTxD @ params["embed"].T)[:, :-1]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits_BxTxV), batch["tokens"][:, 1:, None], axis=-1)
    return -picked.mean(), {}


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[-2]), jnp.float32)
    attention = {name: {"kernel": normal(2, 8, 8)} for name in ("query", "key", "value", "out")}
    mlp = {"up": {"kernel": normal(2, 8, 16), "bias": jnp.zeros((2, 16))}, "down": {"kernel": normal(2, 16, 8)}}
    rows = [{"tokens": tokens} for tokens in rng.integers(0, 12, (16, 6))]
    return {"embed": normal(12, 8), "layers": {"attention": attention, "mlp": mlp}}, rows


TENSOR = (
    (".*/(query|key|value|up)/kernel", P(None, None, "model")),
    (".*/(out|down)/kernel", P(None, "model", None)),
    (".*/up/bias", P(None, "model")),
    ("embed", P("model", None)),
)
#: As in TENSOR, and the other axis of each kernel divided over the data.
BOTH = (
    (".*/(query|key|value|up)/kernel", P(None, "data", "model")),
    (".*/(out|down)/kernel", P(None, "model", "data")),
    (".*", Fsdp("data", min_size=1)),
)
WAYS = {
    "data": ("data:-1", REPLICATED),
    "fsdp": ("data:-1", ((".*", Fsdp("data", min_size=1)),)),
    "tensor": ("data:1,model:4", TENSOR),
    "data and tensor": ("data:-1,model:2", TENSOR),
    "fsdp and tensor": ("data:2,model:2", BOTH),
}


def train(model, steps=4, **options):
    params, rows = model
    made = optimizer.by_path([(".*", optimizer.adamw(0.01))], clip_norm=1.0)
    batches = data.batches(rows, batch_size=8, seed=0, threads=0)
    options = {"optimizer": made, "key": jax.random.key(0), "log_every": 1, "show_progress": False} | options
    return fit(transformer_loss, params, batches, steps=steps, **options)


@pytest.fixture(scope="module")
def expected(model):
    return [record["loss"] for record in train(model).history]


@pytest.mark.slow
@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if "and" in way else pytest.mark.slow) for way in WAYS])
def test_every_division_gives_the_losses_of_one_device(model, expected, way):
    axes, rules = WAYS[way]
    mesh = sharding.make_mesh(axes)
    result = train(model, mesh=mesh, rules=rules, average_decay=0.9, accumulate=2 if way == "fsdp" else 1)
    np.testing.assert_allclose([record["loss"] for record in result.history], expected, atol=1e-5)
    shares = {leaf.sharding for leaf in jax.tree.leaves(result.params)}
    assert all(share.mesh == mesh for share in shares)
    kernel = result.params["layers"]["mlp"]["up"]["kernel"]
    parts = {"data": 1, "data and tensor": 2}.get(way, 4)
    assert kernel.addressable_shards[0].data.size * parts == kernel.size
    moments = result.state.opt_state[1].inner_states["0"].inner_state.inner_state[0]
    for tree in (moments.mu, moments.nu, result.state.average.params):
        assert tree["layers"]["mlp"]["up"]["kernel"].sharding.is_equivalent_to(kernel.sharding, 3)


@pytest.mark.slow
def test_a_run_is_resumed_on_other_meshes(model, expected, tmp_path):
    losses = []
    for steps, way in ((1, "data"), (2, "fsdp and tensor"), (3, "tensor"), (4, None)):
        placed = {} if way is None else {"mesh": sharding.make_mesh(WAYS[way][0]), "rules": WAYS[way][1]}
        with Checkpointer(tmp_path) as checkpoints:
            result = train(model, steps=steps, checkpoints=checkpoints, **placed)
        losses += [record["loss"] for record in result.history]
    np.testing.assert_allclose(losses, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("data:-1", {"data": 4}),
        ("data:-1,model:2", {"data": 2, "model": 2}),
        ("data:1, model:4", {"data": 1, "model": 4}),
        ("replica:2,data:1,model:-1", {"replica": 2, "data": 1, "model": 2}),
    ],
)
def test_a_mesh_is_read_from_a_string(axes, shape):
    mesh = sharding.make_mesh(axes)
    assert dict(mesh.shape) == shape
    assert all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("data", "must read as"),
        ("data:two", "must read as"),
        ("2:data", "must read as"),
        ("", "must read as"),
        ("data:2,data:2", "different names"),
        ("data:-1,model:-1", "one of them -1"),
        ("data:0", "positive sizes"),
        ("data:-2", "positive sizes"),
        ("data:3", "must divide the 4 devices"),
        ("data:-1,model:3", "must divide the 4 devices"),
        ("data:2", "must divide the 4 devices"),
    ],
)
def test_a_string_that_gives_no_mesh_is_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(axes)


def test_every_parameter_that_does_not_fit_is_named(model):
    params, _ = model
    mesh = sharding.make_mesh("data:-1")
    with pytest.raises(ValueError, match="rules must match every parameter; 7 of 8"):
        sharding.partition(params, mesh, [("embed", P())])
    with pytest.raises(ValueError, match="must fit the parameters' shapes") as error:
        sharding.partition(params, mesh, [(".*/kernel", P("data")), ("embed", P(None, None, "data")), (".*", P())])
    assert "layers/mlp/up/kernel (2, 8, 16)" in str(error.value)
    assert "2 is not divisible by the 4 devices of data" in str(error.value)
    assert "embed (12, 8)" in str(error.value) and "names 3 axes of 2" in str(error.value)
    with pytest.raises(ValueError, match=r"must use the mesh's axes \('data',\); '.\*' names \['model'\]"):
        sharding.partition(params, mesh, [(".*", P("model"))])


def test_the_first_partition_that_fits_is_taken_and_the_last_is_reported():
    mesh = sharding.make_mesh("data:2,model:2")
    words = sharding.FirstFit((P("model", "data"), P(None, "data")))
    assert words.spec((8, 4), mesh) == P("model", "data")
    assert words.spec((7, 4), mesh) == P(None, "data")
    with pytest.raises(ValueError, match="3 is not divisible by the 2 devices of data"):
        sharding.partition({"word": np.zeros((7, 3))}, mesh, [("word", words)])
    with pytest.raises(ValueError, match=r"'word' names \['model'\]"):
        sharding.partition({"word": np.zeros((7, 3))}, sharding.make_mesh("data:-1"), [("word", words)])


def test_fsdp_divides_the_largest_axis_that_can_be_divided():
    mesh = sharding.make_mesh("data:-1")
    assert Fsdp("data", min_size=1).spec((8, 6, 16), mesh) == P(None, None, "data")
    assert Fsdp("data", min_size=1).spec((8, 18), mesh) == P("data")
    assert Fsdp("data", min_size=1).spec((3, 5), mesh) == P()
    assert Fsdp("data").spec((8, 8), mesh) == P()


def test_a_batch_is_divided_over_its_axes_and_one_that_cannot_be_is_refused():
    mesh = sharding.make_mesh("data:2,model:2")
    placed = sharding.shard_batch({"x": np.arange(8.0).reshape(4, 2)}, mesh)["x"]
    assert placed.addressable_shards[0].data.shape == (2, 2)
    assert sharding.shard_batch(np.zeros((4, 2)), mesh, axes=("data", "model")).addressable_shards[0].data.shape == (
        1,
        2,
    )
    np.testing.assert_array_equal(placed, np.arange(8.0).reshape(4, 2))
    with pytest.raises(ValueError, match=r"2 parts of \('data',\) divide, got shape \(3,\)"):
        sharding.shard_batch(np.zeros(3), mesh)
    with pytest.raises(ValueError, match=r"2 parts of .* got shape \(\)"):
        sharding.shard_batch(np.float32(1), mesh)
    with pytest.raises(ValueError, match="axes must be among"):
        sharding.shard_batch(np.zeros(4), mesh, axes="rows")


def test_a_step_is_lowered_from_abstract_arrays_alone(model):
    params, _ = model
    mesh = sharding.make_mesh("data:2,model:2")
    made = optimizer.by_path([(".*", optimizer.adamw(0.01))])
    state = jax.eval_shape(lambda params, key: init_state(params, made, key=key), params, jax.random.key(0))
    state = sharding.abstract(state, sharding.state_shardings(state, mesh, BOTH))
    batch = {"tokens": jax.ShapeDtypeStruct((8, 6), jnp.int32, sharding=NamedSharding(mesh, P("data")))}
    memory = (
        jax.jit(make_step(transformer_loss, made), donate_argnums=0).lower(state, batch).compile().memory_analysis()
    )
    # Parameters and two moments; each device holds its part, besides the scalars, the key and its part of the batch.
    whole = 3 * sum(leaf.size * 4 for leaf in jax.tree.leaves(params))
    assert whole / 4 <= memory.argument_size_in_bytes < whole / 2


def mean_square(w, x):
    return jnp.square(x @ w).mean()


def test_pmap_shard_map_and_jit_give_the_same_step():
    w = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2)), jnp.float32)
    x = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)

    def step(w, x):
        loss, gradient = jax.value_and_grad(mean_square)(w, x)
        loss, gradient = jax.lax.pmean((loss, gradient), "data")
        return w - 0.1 * gradient, loss

    mesh = sharding.make_mesh("data:-1")
    loss, gradient = jax.jit(jax.value_and_grad(mean_square))(w, sharding.shard_batch(x, mesh))
    expected = w - 0.1 * gradient
    new, losses = sharding.pmap_step(step)(jnp.stack([w] * 4), x.reshape(4, 2, 3))
    np.testing.assert_allclose(new, np.stack([expected] * 4), atol=1e-6)
    np.testing.assert_allclose(losses, [loss] * 4, rtol=1e-6)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P("data")), out_specs=P(), check_vma=False)
    new, mapped_loss = mapped(w, x)
    np.testing.assert_allclose(new, expected, atol=1e-6)
    np.testing.assert_allclose(mapped_loss, loss, rtol=1e-6)
