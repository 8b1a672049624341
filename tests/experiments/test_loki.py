"""The Loki experiment on made-up texts: a tree of classes, some of them never observed."""

import numpy as np
import pytest

from experiments import loki, runner

NAMES = ("ENTY:animal", "ENTY:color", "ENTY:food", "HUM:ind", "HUM:group", "NUM:date")
SHORT = ("--observed", "2", "4", "6", "--seeds", "2")


def run(tmp_path, *arguments):
    return runner.main(loki.run, "loki", [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")])


def test_every_choice_of_observed_classes_is_measured_once(tmp_path, encoder, texts, monkeypatch):
    texts(NAMES, n=80)
    first = run(tmp_path, "trec", *SHORT)
    grid = [
        first.cached(f"{m} observed, seed {s}", lambda: pytest.fail("was not kept")) for m in (2, 4, 6) for s in (0, 1)
    ]
    assert [row["observed"] for row in grid] == [2, 2, 4, 4, 6, 6]
    assert all(0 <= row[name] <= 16 for row in grid for name in ("argmax", "loki"))
    assert np.mean([row["argmax"] for row in grid[:2]]) > np.mean([row["argmax"] for row in grid[4:]])
    report = (first.path / "report.md").read_text()
    assert "80 test examples, 6 classes, diameter 4." in report
    assert "published, ImageNet, 250" in report and "46.78" in report
    assert "best temperature by expected_cost" in report
    assert (first.path / "observed.png").is_file()

    (first.path / "results" / "4 observed, seed 1.json").unlink()
    calls, measure = [], loki.measure
    monkeypatch.setattr(loki, "measure", lambda task, m, seed: calls.append((m, seed)) or measure(task, m, seed))
    for part in ("exponents", "temperatures"):
        monkeypatch.setattr(loki, part, lambda *a: pytest.fail("was finished"))
    assert run(tmp_path, "trec", *SHORT, "--resume").path == first.path
    assert calls == [(4, 1)]


def test_images_without_a_folder_are_refused_with_the_options_to_give(tmp_path):
    with pytest.raises(SystemExit, match="cifar10 needs --data-dir .* and --hierarchy"):
        run(tmp_path, "cifar10")


@pytest.mark.slow
def test_loki_saves_distance_on_real_images(tmp_path, shared_data):
    hierarchy = shared_data / "hierarchy" / "cifar10_wordnet.json"
    options = ("--data-dir", shared_data / "tfds", "--hierarchy", hierarchy, "--observed", "3", "10", "--seeds", "2")
    folder = run(tmp_path, "cifar10", *options)
    row = folder.cached("10 observed, seed 0", lambda: pytest.fail("was not kept"))
    assert row["loki"] < 0.7 * row["argmax"]
