"""The search over adapters on made-up texts with a tiny encoder."""

import json
from pathlib import Path

import pytest

from experiments import more_search, runner
from zsml_jax import data, peft
from zsml_jax.peft.method_file import read_method
from zsml_jax.train import sweep

BERT = Path(__file__).parent.parent / "golden" / "encoders" / "bert"
CLASSES = ("cat", "dog", "mat")
SPACE = ("--blocks", 1, 2, "--block-ranks", 2, "--targets", "query", "query,value", "--learning-rates", 0.01)
SHORT = ("--model", BERT, "--length", 12, "--rungs", 2, 2, "--batch-size", 8, "--report-every", 1, "--budget", 300)


def run(tmp_path, *arguments):
    command = ["trec_coarse", *map(str, (*SHORT, *SPACE, *arguments)), "--runs-dir", str(tmp_path / "runs")]
    return runner.main(more_search.run, "more_search", command)


@pytest.fixture
def without_test(texts, monkeypatch):
    """Made-up texts whose test split cannot be had; the fixture is the list of what was loaded."""
    texts(CLASSES, n=40)
    load, loaded = data.load, []

    def guarded(name, *, split="all", **options):
        loaded.append(split)
        assert split.startswith(("train", "validation")), f"the search has read {split}"
        return load(name, split=split, **options)

    monkeypatch.setattr(data, "load", guarded)
    return loaded


@pytest.mark.slow
def test_a_search_reports_its_front_and_goes_on_where_it_was_killed(tmp_path, without_test, monkeypatch):
    advance, calls = sweep.advance, []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return advance(*arguments, **options)

    monkeypatch.setattr(sweep, "advance", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    folder = run(tmp_path, "--resume")
    report = (folder.path / "report.md").read_text()
    for said in ("the test split was not loaded", "python -m experiments.more trec_coarse", "The front", "All points"):
        assert said in report
    assert (folder.path / "front.png").stat().st_size > 1000
    best = read_method(folder.path / "best.json")
    assert isinstance(best.method, peft.MoRe) and best.found["parameters"] <= 300
    command = report[report.index("experiments.more trec_coarse") :].splitlines()[0].split()
    assert command[command.index("--method-file") + 1] == str(folder.path / "best.json")
    front = [json.loads(path.read_text()) for path in (folder.path / "front").iterdir()]
    assert max(one["found"]["validation_accuracy"][0] for one in front) == best.found["validation_accuracy"][0]
    assert set(without_test) == {"train", "validation[:500]"}
    whole = run(tmp_path / "whole")
    assert read_method(whole.path / "best.json") == best


def test_a_space_that_holds_nothing_is_refused(tmp_path, without_test):
    with pytest.raises(SystemExit, match="blocks must divide one of block_ranks"):
        run(tmp_path, "--blocks", 4)
    with pytest.raises(SystemExit, match="budget must allow at least the smallest candidate's"):
        run(tmp_path, "--budget", 3)
