import pytest

from zsml_jax.transform.patterns import matches, nearest_paths, select_paths

PATHS = ["", "layers", "layers/attention/query", "layers/attention/key", "layers/mlp/down", "head"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("head", "head", True),
        ("head", "heads", False),
        ("*", "head", True),
        ("*", "layers/mlp", False),
        ("*", "", False),
        ("", "", True),
        ("**", "", True),
        ("**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**", "ab", False),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("**/c", "a/bc", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("layer_*/mlp", "layer_12/mlp", True),
        ("layer_?/mlp", "layer_12/mlp", False),
        ("layer_[0-3]/mlp", "layer_3/mlp", True),
        ("layer_[!0-3]/mlp", "layer_3/mlp", False),
        ("layer_{1,12}/mlp", "layer_12/mlp", True),
        ("layer_{1,12}/mlp", "layer_2/mlp", False),
        ("a.b", "axb", False),
        ("q{uery,}", "q", True),
    ],
)
def test_a_pattern_describes_whole_paths(pattern, path, expected):
    assert matches(pattern, path) is expected


def test_several_patterns_choose_each_path_once_in_the_order_of_the_paths():
    chosen = select_paths(["head", "layers/*/key", "**/key"], PATHS, argument="sites", kind="submodule")
    assert chosen == ["layers/attention/key", "head"]


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_paths():
    with pytest.raises(
        ValueError, match=r"rules: the pattern 'layers/attn/query' matches no Dense.*nearest: '(.*?)'"
    ) as e:
        select_paths(["head", "layers/attn/query"], PATHS, argument="rules", kind="Dense layer")
    assert "nearest: 'layers/attention/query'" in str(e.value)
    assert nearest_paths("layers/*/dwn", PATHS)[0] == "layers/mlp/down"


def test_no_pattern_is_an_error():
    with pytest.raises(ValueError, match="sites must have at least one pattern, got none"):
        select_paths([], PATHS, argument="sites", kind="submodule")


@pytest.mark.parametrize("pattern", ["/head", "a//b", "a/", "a/[bc", "{a/b}", "a}"])
def test_a_pattern_without_a_meaning_is_an_error(pattern):
    with pytest.raises(ValueError, match="pattern must"):
        matches(pattern, "head")
