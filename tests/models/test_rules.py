import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.models.bert_weights import FAMILIES
from zsml_jax.models.lazy_tensor import LazyTensor
from zsml_jax.models.rules import KEEP, TRANSPOSE, Rule, Table, convert, revert
from zsml_jax.models.tensors import open_tensors

TABLE = Table(
    rules=(
        Rule("block.{i}.head.{j}.weight", "block_{i}/head_{j}/kernel", TRANSPOSE),
        Rule("block.{i}.*", None),
        Rule("scale", "scale", KEEP),
    ),
    renames=((r"^model\.", ""), (r"\.gamma$", ".weight")),
)


def lazy(value) -> LazyTensor:
    return LazyTensor(value.shape, value.dtype, lambda: value)


@given(i=st.integers(0, 200), j=st.integers(0, 200))
def test_a_rule_fills_the_numbers_of_the_name_into_the_path(i, j):
    rule, path = TABLE.find(f"model.block.{i}.head.{j}.gamma")
    assert path == f"block_{i}/head_{j}/kernel"
    assert rule.source.format(i=i, j=j) == f"block.{i}.head.{j}.weight"


def test_the_first_rule_that_matches_decides_and_the_dot_is_a_dot():
    assert TABLE.find("block.3.rope") == (TABLE.rules[1], None)
    assert TABLE.find("blockx3.rope") is None
    assert TABLE.find("block.x.rope") is None
    assert TABLE.find("my_scale") is None


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


@pytest.mark.parametrize("layout", ["bert", "distilbert", "roberta", "albert"])
def test_a_family_s_table_can_be_read_backwards_for_every_parameter(layout):
    """Saved names are the file's without the prefix of the encoder, and every value is the very same."""
    pretrained, tensors = models.load(GOLDEN / layout), open_tensors(GOLDEN / layout)
    table = FAMILIES[layout].rules(pretrained.config)
    written = revert(table, pretrained.params)
    kept = {name for name in tensors if table.find(name)[1] is not None}
    assert set(written) == {table.canonical(name) for name in kept}
    for name in kept:
        np.testing.assert_array_equal(written[table.canonical(name)].read(), tensors[name].read())
