import csv
import json

import numpy as np
import pytest

from experiments import autows, autows_data, autows_methods, label, runner
from experiments.autows_data import Content
from tests.weaksup.partly import blobs

SMALL = [
    "--datasets",
    "wine",
    "--methods",
    "few_shot",
    "label_propagation",
    "goggles",
    "--seeds",
    "2",
    "--labels",
    "30",
]


def start(runs, *arguments):
    return runner.main(autows.run, "autows", ["small", *SMALL, *arguments, "--runs-dir", str(runs)])


@pytest.mark.slow
def test_a_grid_is_measured_resumed_and_reported(tmp_path, monkeypatch):
    first = start(tmp_path)
    rows = {(row["features"], row["method"]): row for row in first.metrics()}
    assert set(rows) == {(f, m) for f in ("raw", "pca") for m in ("few_shot", "label_propagation", "goggles")}
    assert rows["raw", "few_shot"]["coverage"] == 1.0
    assert rows["raw", "few_shot"]["accuracy"] > 0.85
    report = (first.path / "report.md").read_text()
    for name in ("profiles", "ranks"):
        assert f"({name}.png)" in report
        assert (first.path / f"{name}.png").stat().st_size > 5_000
    (first.path / "results" / "wine, pca, few_shot, seed 1.json").unlink()
    measure, again = autows_methods.measure, []
    monkeypatch.setattr(
        autows_methods, "measure", lambda *args, **options: again.append(args[1]) or measure(*args, **options)
    )
    second = start(tmp_path, "--resume")
    assert again == ["few_shot"]
    assert second.path == first.path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snuba", "snuba_multipolar", "iws", "goggles_released"])
def test_every_method_labels_better_than_a_guess(method):
    x, truth, _ = blobs(n=300, k=3, d=6)
    problem = autows_data.Problem(np.asarray(x)[:200], truth[:200], np.asarray(x)[200:], truth[200:])
    found = autows_methods.measure(problem, method, count=60, stratified=True, seed=0)
    assert found["adjusted"] > 0.45
    assert found["accuracy"] > 0.6
    assert found["end_model"] > 0.5


def test_principal_components_see_the_test_examples_only_when_asked():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 5)), 3 + rng.normal(size=(20, 5))
    content = Content(train, np.arange(30) % 2, test, np.arange(20) % 2)
    options = {"components": 2, "encoder": ""}
    own = autows_data.features(content, "pca", transductive=False, **options)
    np.testing.assert_allclose(own.x.mean(axis=0), 0, atol=1e-4)
    both = autows_data.features(content, "pca", transductive=True, **options)
    np.testing.assert_allclose(np.concatenate([both.x, both.test_x]).mean(axis=0), 0, atol=1e-4)


def test_the_published_figures_are_those_of_the_notebook():
    figures = json.loads((autows_methods_folder() / "figures.json").read_text())
    assert figures["mnist"]["raw"]["few_shot"] == {"accuracy": 73.0, "coverage": 100.0}
    assert figures["permuted_mnist"]["pca"]["iws"] == {"accuracy": 49.7, "coverage": 48.0}
    assert figures["navier_stokes"]["resnet18"]["snuba"]["accuracy"] == 97.7
    assert sum(len(m) for d in figures.values() for m in d.values()) == 224


def autows_methods_folder():
    return autows_data.Path(runner.__file__).parent.parent / "configs" / "autows"


def test_bad_configs_are_refused(tmp_path):
    for arguments, message in [
        (["--datasets", "imagenet"], "datasets must name some of"),
        (["--methods", "few_shot", "few_shot"], "each once"),
        (["--seeds", "1"], "seeds and labels must be at least 2"),
        (["--features", "minilm"], "features must suit one of the data sets"),
        (["--datasets", "mnist"], "mnist needs --data-dir"),
    ]:
        with pytest.raises(SystemExit, match=message):
            runner.main(autows.run, "autows", ["small", *SMALL, *arguments, "--runs-dir", str(tmp_path)])


def write_files(folder, lines):
    x, truth, _ = blobs(n=60, k=2, d=3)
    np.save(folder / "x.npy", np.asarray(x))
    (folder / "some.csv").write_text("\n".join(["row,label", *lines(truth)]))
    return ["--features", str(folder / "x.npy"), "--labels", str(folder / "some.csv"), "--out", str(folder / "out")]


def words(truth):
    return [f"{i},{'ham' if truth[i] else 'spam'}" for i in range(30)]


def test_a_persons_own_data_is_labelled(tmp_path):
    out = label.main([*write_files(tmp_path, words), "--method", "goggles"])
    rows = list(csv.DictReader((out / "posteriors.csv").read_text().splitlines()))
    assert len(rows) == 60
    assert set(rows[0]) == {"row", "ham", "spam"}
    assert float(rows[0]["ham"]) + float(rows[0]["spam"]) == pytest.approx(1, abs=1e-5)
    assert "30 with a label, of the classes ham, spam" in (out / "report.md").read_text()


@pytest.mark.slow
def test_votes_are_written_as_the_persons_own_words(tmp_path):
    out = label.main([*write_files(tmp_path, words), "--method", "snuba"])
    rows = list(csv.DictReader((out / "votes.csv").read_text().splitlines()))
    assert {cell for row in rows for name, cell in row.items() if name != "row"} <= {"", "ham", "spam"}
    assert "| function 0 " in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [("7", "line 2, must be a row number and a label, got '7'"), ("99,ham", "row 99 is none of the 60 rows")],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    with pytest.raises(SystemExit, match=message):
        label.main(write_files(tmp_path, lambda truth: [line]))
