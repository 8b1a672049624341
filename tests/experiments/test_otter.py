"""The OTTER experiment on made-up texts: every part is measured, kept and reported."""

import numpy as np
import pytest

from experiments import otter, runner

NAMES = ("ABBR:abb", "ENTY:animal", "ENTY:color", "HUM:ind")
SHORT = ("--shift-seeds", "2", "--epsilons", "0.3", "1", "--few-shot", "3")


def run(tmp_path, *arguments):
    return runner.main(otter.run, "otter", [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")])


@pytest.mark.slow
def test_every_part_is_measured_and_a_resumed_run_measures_none_again(tmp_path, encoder, texts, monkeypatch):
    loaded = texts(NAMES, n=120)
    first = run(tmp_path, "trec_fine", "--limit", 100, *SHORT)
    assert loaded == [("trec_fine", "validation[:100]"), ("trec_fine", "test[:100]")]
    known = first.cached("known", lambda: pytest.fail("was not kept"))
    assert list(known) == [
        "zero-shot",
        "prior matching (as released, tuned)",
        "prior matching (log space)",
        "OTTER",
        "R-OTTER (dual of validation)",
        "H-OTTER",
    ]
    accuracy, low, high = (
        dict(zip(known, part, strict=True)) for part in np.array([*map(otter.bounds, known.values())]).T
    )
    assert all(0 <= low[name] <= accuracy[name] <= high[name] <= 1 for name in known)
    estimated = first.cached("estimated", lambda: pytest.fail("was not kept"))
    assert estimated["true"]["total variation"] == 0
    assert estimated["true"]["accuracy"] == pytest.approx(accuracy["OTTER"], abs=1e-6)
    assert estimated["zero-shot histogram"]["accuracy"] == pytest.approx(accuracy["zero-shot"], abs=1e-6)
    study = first.cached("study", lambda: pytest.fail("was not kept"))
    assert study["epsilon"] == pytest.approx([0, 0.3, 1])
    assert study["accuracy"][0] == pytest.approx(accuracy["OTTER"], abs=1e-6)
    report = (first.path / "report.md").read_text()
    assert "100 test examples, 4 classes" in report
    assert "converged: True" in report
    assert all((first.path / f"{name}.png").is_file() for name in ("accuracy", "labels"))
    assert {line["method"] for line in first.metrics()} == set(known)

    for part in ("known_distribution", "estimated_distribution", "under_shift", "temperature_study"):
        monkeypatch.setattr(otter, part, lambda *a: pytest.fail("was finished"))
    second = run(tmp_path, "trec_fine", "--limit", 100, *SHORT, "--resume")
    assert second.path == first.path
    tables = lambda text: [line for line in text.splitlines() if line.startswith("|") and "%" not in line][:30]
    assert tables((second.path / "report.md").read_text()) == tables(report)


def test_superclasses_are_the_parts_before_the_colon():
    assert otter.superclasses_of(NAMES).tolist() == [0, 1, 1, 2]
    assert otter.superclasses_of(("sport", "HUM:ind")) is None


def test_the_few_shot_sample_is_no_larger_than_the_labels():
    labels = np.array([0, 1, 1, 1, 2])
    assert sorted(otter.few_shot_labels(labels, 10, 0)) == sorted(labels)
    assert len(otter.few_shot_labels(labels, 1, 0)) == 3


@pytest.mark.slow
def test_otter_gains_on_real_trec_questions(tmp_path):
    folder = run(tmp_path, "trec_coarse", "--limit", 300, *SHORT)
    known = folder.cached("known", lambda: pytest.fail("was not kept"))
    assert otter.bounds(known["OTTER"])[0] > otter.bounds(known["zero-shot"])[0] + 0.05
