import io

import jax
import rich.console

from zsml_jax.report import progress


def run(total, **arguments):
    out = io.StringIO()
    console = rich.console.Console(file=out, width=80, force_terminal=arguments.pop("terminal", False))
    seen = list(progress(range(total), "embedding", console=console, **arguments))
    assert seen == list(range(total))
    return out.getvalue()


def test_off_a_terminal_one_line_comes_in_so_many_steps():
    lines = run(25, every=10).splitlines()
    assert [line.split(",")[0] for line in lines] == ["embedding: 10/25", "embedding: 20/25", "embedding: 25/25"]


def test_by_default_about_ten_lines_come():
    assert len(run(1000).splitlines()) == 10
    assert len(run(3).splitlines()) == 3


def test_steps_without_a_length_are_counted():
    out = io.StringIO()
    console = rich.console.Console(file=out, width=80)
    assert list(progress((i for i in range(4)), "x", every=2, console=console)) == [0, 1, 2, 3]
    assert [line.split(",")[0] for line in out.getvalue().splitlines()] == ["x: 2", "x: 4"]


def test_a_terminal_shows_a_bar():
    text = run(5, terminal=True)
    assert "embedding" in text and "5/5" in text


def test_only_the_lead_process_shows_anything(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert run(25, every=1) == ""


def test_brackets_in_a_description_are_shown_as_they_are():
    out = io.StringIO()
    for terminal in (False, True):
        console = rich.console.Console(file=out, width=80, force_terminal=terminal)
        list(progress(range(3), "E[d^2] of [red]", console=console))
    assert out.getvalue().count("E[d^2] of [red]") >= 4
