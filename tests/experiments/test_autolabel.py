"""A labelling job as a person does it: files in, questions, answers, files out."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments import autolabel, autolabel_files

SMALL = (
    *("--classes", "cat", "dog", "--error", "0.1", "--rounds", "2", "--threshold-points", "60"),
    *("--checkpoint-points", "10", "--calibration-points", "10", "--audit-points", "20"),
    *("--seed-points", "20", "--batch-points", "10", "--hidden", "4"),
)


@pytest.fixture
def points(tmp_path):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = (3.0 * y[:, None] + rng.normal(size=(300, 3))).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i}" for i in range(300)) + "\n")
    return [
        "--features",
        str(tmp_path / "x.npy"),
        "--ids",
        str(tmp_path / "ids.txt"),
        "--out",
        str(tmp_path / "job"),
    ], y


def read(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def answer(folder, y, path, *, leave=0):
    rows = read(folder / "to_label.csv")
    for row in rows[leave:]:
        row["label"] = ("cat", "dog")[y[int(row["id"][1:])]]
    autolabel_files.write(path, ("id", "label"), [(row["id"], row["label"]) for row in rows])
    return len(rows)


def test_a_job_asks_goes_on_and_ends_with_every_label_that_it_has(points, tmp_path, capsys):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    asked = answer(folder, y, tmp_path / "a.csv", leave=30)
    assert asked == 120
    # What is given is kept, and the rest is asked for again.
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert "30 labels are wanted" in capsys.readouterr().err
    assert len(read(folder / "to_label.csv")) == 30 and len(read(folder / "human_labels.csv")) == 90
    while (folder / "to_label.csv").is_file():
        answer(folder, y, tmp_path / "a.csv")
        autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    rows = read(folder / "labels.csv")
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(300)]
    sources = {source: [row for row in rows if row["source"] == source] for source in ("human", "auto", "none")}
    assert len(sources["human"]) == len(read(folder / "human_labels.csv")) >= 120 and len(sources["auto"]) > 50
    for row in sources["human"]:
        assert row["label"] == ("cat", "dog")[y[int(row["id"][1:])]]
    wrong = [row for row in sources["auto"] if row["label"] != ("cat", "dog")[y[int(row["id"][1:])]]]
    assert len(wrong) < 0.1 * len(sources["auto"])
    assert all(float(row["confidence"]) > 0 and row["round"] in "12" for row in sources["auto"])
    assert {row["id"] for row in read(folder / "audit.csv")} <= {row["id"] for row in sources["auto"]}
    report = (folder / "report.md").read_text()
    assert "certified" in report and "Audit:" in report and "threshold" in report


def test_labels_at_hand_are_used_first_if_they_are_a_random_sample(points, tmp_path, capsys):
    arguments, y = points
    rows = [(f"p{i}", ("cat", "dog")[y[i]]) for i in range(150, 250)]
    autolabel_files.write(tmp_path / "had.csv", ("id", "label"), rows)
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "had.csv"), "--labelled-at-random"])
    assert "20 labels are wanted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("p0", "cow")], "1 labels are not among the classes cat, dog; the first is 'cow' of 'p0'"),
        ([("p0", "cat"), ("p0", "dog")], "1 ids are there more than once, such as 'p0'"),
        ([("q", "cat")], "1 ids are no points, such as 'q'"),
    ],
)
def test_labels_that_are_wrong_are_told(points, tmp_path, rows, message):
    arguments, _ = points
    autolabel_files.write(tmp_path / "a.csv", ("id", "label"), rows)
    with pytest.raises(SystemExit, match=message):
        autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])


def test_a_changed_label_is_refused_and_the_old_one_kept(points, tmp_path):
    arguments, _ = points
    autolabel_files.write(tmp_path / "a.csv", ("id", "label"), [("p0", "cat")])
    folder = autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    autolabel_files.write(tmp_path / "a.csv", ("id", "label"), [("p0", "dog")])
    with pytest.raises(
        SystemExit, match="1 labels differ from those given before, such as 'dog' for 'p0', which was 'cat'"
    ):
        autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert read(folder / "human_labels.csv") == [{"id": "p0", "label": "cat"}]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--error", "0.01"), "threshold_points must be at least 299 to certify an error of 0.01 in 2 rounds"),
        (("--classes", "cat", "cat"), "classes must be at least two different names"),
        (("--threshold-points", "290"), "400 .*|360 labels would be asked for, and there are only 300 points"),
        (("--features", "nowhere.npy"), "there is no file nowhere.npy"),
        (("--texts", "t.csv"), "give either --features FILE.npy or --texts"),
    ],
)
def test_jobs_that_cannot_end_well_are_refused(points, extra, message):
    with pytest.raises(SystemExit, match=message):
        autolabel.main([*SMALL, *points[0], *extra])


def test_features_that_are_not_finite_and_ids_that_repeat_are_told(points, tmp_path):
    arguments, _ = points
    x = np.load(tmp_path / "x.npy")
    x[7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(SystemExit, match="must be finite; 1 rows are not, the first is row 7"):
        autolabel.main([*SMALL, *arguments])
    np.save(tmp_path / "x.npy", np.nan_to_num(x))
    (tmp_path / "ids.txt").write_text("p0\n" * 300)
    with pytest.raises(SystemExit, match="1 ids are there more than once, such as 'p0'"):
        autolabel.main([*SMALL, *arguments])


def test_another_job_in_the_same_folder_is_refused(points):
    arguments, _ = points
    autolabel.main([*SMALL, *arguments])
    with pytest.raises(SystemExit, match="holds a job of other settings"):
        autolabel.main([*SMALL, *arguments, "--error", "0.2"])


@pytest.mark.slow
def test_texts_are_embedded_and_shown_beside_the_questions(tmp_path, encoder):
    rows = [(f"t{i}", f"{'meow purr' if i % 2 else 'woof bark'} word{i % 7}") for i in range(200)]
    autolabel_files.write(tmp_path / "t.csv", ("id", "text"), rows)
    folder = autolabel.main([*SMALL, "--texts", str(tmp_path / "t.csv"), "--out", str(tmp_path / "job")])
    asked = read(folder / "to_label.csv")
    assert len(asked) == 120 and all(row["text"] == dict(rows)[row["id"]] for row in asked)
