"""What the pages name exists, and what they show is so: tests, modules, presets, and the examples of some pages."""

import doctest
import importlib
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
TESTS = {name for file in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", file.read_text())}
#: Examples of docs/experiments.md, which shows how to write them.
EXAMPLES = {"mine"}


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param.read_text()


def test_every_test_that_a_page_names_exists(page):
    assert set(re.findall(r"`(test_\w+)`", page)) <= TESTS


def test_every_module_that_a_page_links_imports(page):
    for name in re.findall(r"\{mod\}`[^`<]*<([\w.]+)>`", page):
        importlib.import_module(name)


def test_every_experiment_and_preset_of_a_page_exists(page):
    for name, preset in re.findall(r"python -m experiments\.(\w+)(?: ([a-z]\w*))?", page):
        if name not in EXAMPLES:
            assert (ROOT / "experiments" / f"{name}.py").is_file()
            assert not preset or (ROOT / "configs" / name / f"{preset}.py").is_file()


def test_the_readme_lists_the_presets_that_there_are():
    text = (ROOT / "README.md").read_text()
    for folder in (ROOT / "configs").iterdir():
        presets = {file.stem for file in folder.glob("[!_]*.py")}
        if presets:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{folder.name}` |"))
            assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == presets


@pytest.mark.slow
@pytest.mark.parametrize("name", ["models", "training", "transform"])
def test_the_examples_of_a_page_give_what_they_show(name, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "tests" / "golden" / "decoders" / "llama", tmp_path / "tiny-llama")
    monkeypatch.chdir(tmp_path)
    file = ROOT / "docs" / f"{name}.md"
    # Each block by itself, since a fence would read as output; all in one namespace.
    blocks = re.findall(r"```pycon\n(.*?)```", file.read_text(), re.S)
    assert blocks
    globs, runner = {}, doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for i, block in enumerate(blocks):
        test = doctest.DocTestParser().get_doctest(block, globs, f"block {i}", str(file), None)
        runner.run(test, clear_globs=False)
        globs = test.globs
    assert runner.failures == 0
