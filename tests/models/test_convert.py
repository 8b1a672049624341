import weakref

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from tests.models.conftest import DECODERS
from tests.models.test_rules import TABLE
from zsml_jax import models
from zsml_jax.models.convert import convert, revert
from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.pretrained import FAMILIES
from zsml_jax.models.rules import THIRDS, TRANSPOSE, Rule, Table
from zsml_jax.train import sharding_tables
from zsml_jax.train.sharding import make_mesh, partition

FOLDER = DECODERS.parent
GOLDEN = sorted(str(file.parent.relative_to(FOLDER)) for file in FOLDER.rglob("config.json"))

STACKED = Table(
    (
        Rule("h.{i}.c.weight", "layers[{i}]/mlp/kernel", TRANSPOSE),
        Rule("h.{i}.qkv", tuple(f"layers[{{i}}]/{name}" for name in ("query", "key", "value")), THIRDS),
        Rule("scale", "scale"),
    )
)
SHAPES = {
    "layers": {
        "mlp": {"kernel": np.zeros((2, 3, 4))},
        **{name: np.zeros((2, 5)) for name in ("query", "key", "value")},
    },
    "scale": np.zeros(7),
}


def lazy(value) -> LazyTensor:
    return LazyTensor(value.shape, value.dtype, lambda: value)


def checkpoint() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"h.0.c.weight": (4, 3), "h.1.c.weight": (4, 3), "h.0.qkv": (15,), "h.1.qkv": (15,), "scale": (7,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def read(tensors, **options):
    lazy_tensors = {name: lazy(value) for name, value in tensors.items()}
    return convert(STACKED, lazy_tensors, SHAPES, dtype="float32", source="here", **options)


def test_a_parameter_whose_rule_names_a_dtype_has_it_whatever_the_model_has():
    table = Table((Rule("a.{i}", "layers[{i}]/a", dtype="float32"), Rule("b", "b")))
    tensors = {name: lazy(np.full(3, 1 / 3, np.float32)) for name in ("a.0", "a.1", "b")}
    shapes = {"layers": {"a": np.zeros((2, 3))}, "b": np.zeros(3)}
    params = convert(table, tensors, shapes, dtype="bfloat16", source="here")
    assert params["b"].dtype == "bfloat16"
    np.testing.assert_array_equal(params["layers"]["a"], np.full((2, 3), 1 / 3, np.float32))


@pytest.mark.parametrize("placed", [False, True])
def test_what_was_read_is_let_go_before_the_next_tensor_is_read(placed):
    sharding = SingleDeviceSharding(jax.devices()[0]) if placed else None
    alive, most = [], []

    def fresh(value):
        def read():
            most.append(sum(reference() is not None for reference in alive))
            copy = value.copy()
            alive.append(weakref.ref(copy))
            return copy

        return LazyTensor(value.shape, value.dtype, read)

    tensors = {name: fresh(value) for name, value in checkpoint().items()}
    convert(STACKED, tensors, SHAPES, dtype="bfloat16", source="here", sharding=sharding)
    assert len(most) == 9
    assert max(most) == 0


def test_two_tensors_for_one_parameter_are_reported():
    tensors = {name: lazy(np.ones(2, np.float32)) for name in ("scale", "model.scale")}
    with pytest.raises(ValueError, match="model.scale and scale are both scale"):
        convert(TABLE, tensors, {"scale": np.ones(2)}, dtype="float32", source="here")


def test_nothing_is_read_before_all_names_and_shapes_fit():
    def read():
        raise AssertionError("read too early")

    tensors = {"scale": LazyTensor((2,), np.dtype(np.float32), read)}
    with pytest.raises(ValueError, match=r"here does not fit its configuration; 1 problems:\s+missing: other \(3,\)"):
        convert(TABLE, tensors, {"scale": np.ones(2), "other": np.ones(3)}, dtype="float32", source="here")


def test_tensors_of_layers_become_rows_of_stacked_parameters():
    tensors = checkpoint()
    params = read(tensors)
    np.testing.assert_array_equal(params["layers"]["mlp"]["kernel"][1], tensors["h.1.c.weight"].T)
    np.testing.assert_array_equal(params["layers"]["key"][0], tensors["h.0.qkv"][5:10])
    np.testing.assert_array_equal(params["scale"], tensors["scale"])


def test_reverting_gives_back_the_very_tensors():
    tensors = checkpoint()
    back = revert(STACKED, read(tensors))
    assert {name: tensor.nbytes for name, tensor in back.items()} == {k: v.nbytes for k, v in tensors.items()}
    chex.assert_trees_all_equal({name: tensor.read() for name, tensor in back.items()}, tensors)


def test_all_that_does_not_fit_a_stack_is_reported_at_once():
    tensors = checkpoint()
    del tensors["h.1.qkv"]
    tensors["h.2.c.weight"] = np.zeros((4, 3), np.float32)
    tensors["h.0.c.weight"] = np.zeros((4, 4), np.float32)
    with pytest.raises(ValueError, match="5 problems") as caught:
        read(tensors)
    text = str(caught.value)
    assert "unexpected: h.2.c.weight (4, 3) would be layers[2]/mlp/kernel, which the configuration does not" in text
    assert "misshapen: h.0.c.weight gives layers[0]/mlp/kernel the shape (4, 4), must be (3, 4)" in text
    assert all(f"missing: layers[1]/{name} (5,)" in text for name in ("query", "key", "value"))


def test_a_parameter_without_a_name_in_the_file_and_a_part_that_lacks_are_reported():
    params = read(checkpoint())
    del params["layers"]["key"]
    with pytest.raises(ValueError, match="3 problems") as caught:
        revert(STACKED, {**params, "extra": np.zeros(2)})
    assert "extra has no name in the checkpoint" in str(caught.value)
    assert "h.0.qkv lacks layers[0]/key" in str(caught.value)


def test_parameters_go_straight_to_the_sharding_of_their_path():
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    spec = {"layers/mlp/up/kernel": PartitionSpec(None, "data", "model"), "norm/scale": PartitionSpec("data")}
    place = lambda path: NamedSharding(mesh, spec.get(path, PartitionSpec()))
    expected = models.load(DECODERS / "llama").params
    params = models.load(DECODERS / "llama", sharding=place).params
    chex.assert_trees_all_equal(params, expected)
    up = params["layers"]["mlp"]["up"]["kernel"]
    assert up.sharding == place("layers/mlp/up/kernel")
    assert {shard.data.shape for shard in up.addressable_shards} == {(3, 8, 12)}
    as_tree = jax.tree.map(lambda leaf: leaf.sharding, params)
    again = models.load(DECODERS / "llama", sharding=as_tree).params
    assert jax.tree.map(lambda leaf: leaf.sharding, again) == as_tree
    on_third = models.load(DECODERS / "llama", sharding=SingleDeviceSharding(jax.devices()[3])).params
    assert {device for leaf in jax.tree.leaves(on_third) for device in leaf.devices()} == {jax.devices()[3]}


@pytest.mark.slow
@pytest.mark.parametrize("family", GOLDEN)
def test_a_mesh_stands_for_the_table_of_the_family(family):
    mesh = make_mesh("data:2,model:2")
    expected, pretrained = models.load(FOLDER / family), models.load(FOLDER / family, sharding=mesh)
    chex.assert_trees_all_equal(pretrained.params, expected.params)
    table = partition(expected.params, mesh, sharding_tables.rules_for(pretrained.model_type))
    assert jax.tree.map(lambda leaf: leaf.sharding, pretrained.params) == table
    assert any(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(pretrained.params))


def test_every_family_has_a_table_and_one_that_a_mesh_cannot_divide_is_named():
    assert set(sharding_tables.MODEL_TYPES) == set(FAMILIES)
    with pytest.raises(
        ValueError, match=r"layers/attention/key/kernel \(3, 16, 8\) .*: 16 is not divisible by the 3 dev"
    ):
        models.load(FOLDER / "decoders/llama", sharding=make_mesh("data:3,model:1", devices=jax.devices()[:3]))


def test_a_sharding_pytree_of_another_structure_is_refused():
    sharding = SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(ValueError, match=r"sharding must have the structure of the parameters; .*scale"):
        read(checkpoint(), sharding={"layers": {"mlp": {"kernel": sharding}}})


def test_weights_of_a_layer_that_are_not_finite_are_refused_by_name(tmp_path):
    tensors = safetensors.numpy.load_file(DECODERS / "gpt2" / "model.safetensors")
    tensors["transformer.h.1.attn.c_attn.bias"][3] = np.nan
    (tmp_path / "config.json").write_text((DECODERS / "gpt2" / "config.json").read_text())
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"not finite as float32: transformer.h.1.attn.c_attn.bias"):
        models.load(tmp_path)
