"""What the pages name exists: the tests that show a difference, modules, experiments and their presets."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
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
