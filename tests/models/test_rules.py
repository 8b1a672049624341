import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models.conftest import GOLDEN
from zsml_jax import models
from zsml_jax.models.bert_weights import FAMILIES
from zsml_jax.models.convert import revert
from zsml_jax.models.rules import KEEP, THIRDS, TRANSPOSE, Rule, Table, interleaved_thirds
from zsml_jax.models.tensors import open_tensors

TABLE = Table(
    rules=(
        Rule("block.{i}.head.{j}.weight", "block_{i}/head_{j}/kernel", TRANSPOSE),
        Rule("block.{i}.*", None),
        Rule("scale", "scale", KEEP),
    ),
    renames=((r"^model\.", ""), (r"\.gamma$", ".weight")),
)


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


def test_thirds_lie_side_by_side_and_come_back():
    x = np.arange(24.0).reshape(2, 12)
    parts = THIRDS.forward(x)
    np.testing.assert_array_equal(parts[1], x[:, 4:8])
    np.testing.assert_array_equal(THIRDS.inverse(parts), x)


@pytest.mark.parametrize("shape", [(12, 5), (12,)])
def test_interleaved_thirds_take_each_head_s_rows_and_come_back(shape):
    """Two heads of width 2: rows 0-1, 2-3, 4-5 are the first head's, rows 6-7, 8-9, 10-11 the second's."""
    x = np.arange(np.prod(shape)).reshape(shape)
    transform = interleaved_thirds(2)
    parts = transform.forward(x)
    np.testing.assert_array_equal(parts[0], x[[0, 1, 6, 7]].T)
    np.testing.assert_array_equal(parts[2], x[[4, 5, 10, 11]].T)
    np.testing.assert_array_equal(transform.inverse(parts), x)


def test_a_rule_of_several_parameters_names_them_all_in_both_directions():
    rule = Rule("h.{i}.qk", ("layers[{i}]/query", "layers[{i}]/key"), THIRDS)
    table = Table((rule,))
    assert table.find("h.3.qk") == (rule, ("layers[3]/query", "layers[3]/key"))
    assert table.source_of("layers[3]/key") == (rule, "h.3.qk", ("layers[3]/query", "layers[3]/key"))
    assert table.source_of("layers/key") is None
    assert table.stacks == {"layers"}
