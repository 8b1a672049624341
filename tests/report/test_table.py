import io

import jax.numpy as jnp
import numpy as np
import pytest
import rich.console

from zsml_jax.report import Column, Estimate, Table


def accuracy_table():
    columns = ["method", Column("accuracy", percent=True, best="max"), Column("published", percent=True), "n"]
    table = Table(columns, title="BBC News")
    table.add("zero-shot", Estimate(0.752, 0.741, 0.763), 0.747, 2225)
    table.add("OTTER", [0.8124, 0.801, 0.8232], None, 1000)
    return table


def test_markdown_has_intervals_gaps_the_best_in_bold_and_numbers_to_the_right():
    assert accuracy_table().to_markdown().splitlines() == [
        "**BBC News**",
        "",
        "| method    |              accuracy | published |     n |",
        "| --------- | --------------------: | --------: | ----: |",
        "| zero-shot |     75.2 [74.1, 76.3] |      74.7 | 2,225 |",
        "| OTTER     | **81.2 [80.1, 82.3]** |         – | 1,000 |",
    ]


def test_the_terminal_shows_the_same_cells():
    out = io.StringIO()
    accuracy_table().print(rich.console.Console(file=out, width=100))
    text = out.getvalue()
    for cell in ("BBC News", "75.2 [74.1, 76.3]", "81.2 [80.1, 82.3]", "2,225", "–"):
        assert cell in text


def test_best_may_be_the_smallest_ties_are_all_bold_and_nan_never_wins():
    table = Table(["m", Column("gap", digits=2, best="min")])
    for name, gap in (("a", 0.301), ("b", 0.304), ("c", 0.5), ("d", float("nan"))):
        table.add(name, gap)
    lines = table.to_markdown().splitlines()
    assert [("**" in line) for line in lines[2:]] == [True, True, False, False]
    assert "nan" in lines[-1]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [(np.float32(1.25), "1.2"), (jnp.float32(2.06), "2.1"), (np.int64(1234), "1,234"), (True, "yes"), ("x|y", "x\\|y")],
)
def test_a_cell_is_shown_by_its_kind(cell, shown):
    table = Table(["a"])
    table.add(cell)
    assert table.to_markdown().splitlines()[-1].strip("| ") == shown


def test_square_brackets_are_not_taken_for_terminal_markup():
    out = io.StringIO()
    table = Table(["[b]a"], title="E[d^2]")
    table.add("[red]x[/red]")
    table.print(rich.console.Console(file=out, width=60))
    assert all(text in out.getvalue() for text in ("[red]x[/red]", "[b]a", "E[d^2]"))


def test_a_row_of_the_wrong_length_or_a_strange_cell_is_refused():
    table = Table(["a", "b"])
    with pytest.raises(ValueError, match="a row must have 2 cells, got 1"):
        table.add(1)
    with pytest.raises(ValueError, match="a cell of column 'b' must be a string"):
        table.add(1, [2])
    with pytest.raises(ValueError, match="a cell of column 'a' must be"):
        table.add((1.0, 2.0), 1)
    assert table.rows == []
