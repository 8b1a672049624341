"""A labelling job as a person does it: files in, questions, answers, files out."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from experiments import autolabel, autolabel_files, autolabel_job
from experiments.autolabel_files import Points
from experiments.autolabel_job import Job

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
    files = ("--features", tmp_path / "x.npy", "--ids", tmp_path / "ids.txt", "--out", tmp_path / "job")
    return [str(word) for word in files], y


def read(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def name_of(y, row):
    return ("cat", "dog")[y[int(row["id"][1:])]]


def write(path, rows):
    autolabel_files.write(path, tuple(rows[0]), [tuple(row.values()) for row in rows])


def answer(folder, y, path, *, leave=0):
    rows = read(folder / "to_label.csv")
    for row in rows[leave:]:
        row["label"] = name_of(y, row)
    write(path, rows)
    return len(rows)


def bring_closer(tmp_path, y, apart):
    """Moves the classes to this distance, from 3."""
    x = np.load(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", x - np.float32(3 - apart) * y[:, None].astype(np.float32))


def finish(arguments, y):
    """Labels in place what is wanted, until nothing is."""
    folder = autolabel.main([*SMALL, *arguments])
    while (folder / "to_label.csv").is_file():
        answer(folder, y, folder / "to_label.csv")
        autolabel.main([*SMALL, *arguments])
    return folder


def test_a_job_asks_goes_on_and_ends_with_every_label_that_it_has(points, tmp_path, capsys):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    asked = answer(folder, y, tmp_path / "a.csv", leave=30)
    assert asked == 120
    # What is given is kept, and the rest is asked for again and filled in in place.
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert "30 labels are wanted" in capsys.readouterr().err
    assert len(read(folder / "to_label.csv")) == 30 and len(read(folder / "human_labels.csv")) == 90
    while (folder / "to_label.csv").is_file():
        answer(folder, y, folder / "to_label.csv")
        autolabel.main([*SMALL, *arguments])
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
        (("--error", "0.01"), "--threshold-points must be at least 299 to certify an error of 0.01 in 2 rounds"),
        (("--classes", "cat", "cat "), "--classes must be at least two different names"),
        (("--classes", "cat", " "), "--classes must be at least two different names"),
        (("--threshold-points", "290"), "400 .*|360 labels would be asked for, and there are only 300 points"),
        (("--features", "nowhere.npy"), "there is no file nowhere.npy"),
        (("--texts", "t.csv"), "give either --features FILE.npy or --texts"),
        (("--error", "1.5"), "--error must lie between 0 and 1, got 1.5"),
        (("--hidden", "0"), "--hidden must be at least 1, got 0"),
        (("--seed-points", "0"), "--seed-points must be at least 1, got 0"),
        (("--seed", str(2**64)), "--seed must be less than"),
    ],
)
def test_jobs_that_cannot_end_well_are_refused_and_bind_no_folder(points, tmp_path, extra, message):
    with pytest.raises(SystemExit, match=message):
        autolabel.main([*SMALL, *points[0], *extra])
    assert not (tmp_path / "job").exists()


def test_features_that_are_not_finite_and_ids_that_repeat_are_told(points, tmp_path):
    arguments, _ = points
    x = np.load(tmp_path / "x.npy")
    x[7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(SystemExit, match="must be finite as float32; 1 rows are not, the first is row 7"):
        autolabel.main([*SMALL, *arguments])
    np.save(tmp_path / "x.npy", np.nan_to_num(x))
    (tmp_path / "ids.txt").write_text("p0\n" * 300)
    with pytest.raises(SystemExit, match="1 ids are there more than once, such as 'p0'"):
        autolabel.main([*SMALL, *arguments])


def test_another_job_in_the_same_folder_is_refused_by_what_differs(points, tmp_path, monkeypatch):
    arguments, _ = points
    folder = autolabel.main([*SMALL, *arguments])
    with pytest.raises(SystemExit, match="other settings: --error was 0.1 and is 0.2; --hidden was 4 and is 5; give"):
        autolabel.main([*SMALL, *arguments, "--error", "0.2", "--hidden", "5"])
    # The same files by other paths are the same job.
    monkeypatch.chdir(tmp_path)
    autolabel.main([*SMALL, "--features", "x.npy", "--ids", "ids.txt", "--out", "job"])
    (folder / "job.json").write_text("[]")
    with pytest.raises(SystemExit, match="job.json is not what this program writes"):
        autolabel.main([*SMALL, *arguments])
    (folder / "job.json").unlink()
    with pytest.raises(SystemExit, match="holds human_labels.csv, and no job.json"):
        autolabel.main([*SMALL, *arguments])


def test_points_that_changed_or_moved_between_two_calls_are_refused(points, tmp_path):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    asked = answer(folder, y, folder / "to_label.csv")
    x, order = np.load(tmp_path / "x.npy"), np.random.default_rng(1).permutation(300)
    np.save(tmp_path / "x.npy", x[order])
    with pytest.raises(SystemExit, match="the features are not those that .*job began with; the points must be those"):
        autolabel.main([*SMALL, *arguments])
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i}" for i in order) + "\n")
    with pytest.raises(SystemExit, match="the ids and the features are not those"):
        autolabel.main([*SMALL, *arguments])
    assert sum(row["label"] != "" for row in read(folder / "to_label.csv")) == asked
    # In another precision or byte order they are the same points.
    np.save(tmp_path / "x.npy", np.asfortranarray(x.astype(">f8")))
    (tmp_path / "ids.txt").write_text("\n".join(f"p{i}" for i in range(300)))
    autolabel.main([*SMALL, *arguments])
    first, second = (Points(("a", "b"), None, texts).digests() for texts in (("x", "y"), ("y", "x")))
    assert first["ids"] == second["ids"] and first["texts"] != second["texts"]


def test_what_was_filled_in_in_place_is_kept_whatever_else_is_given(points, tmp_path, capsys):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    answer(folder, y, folder / "to_label.csv", leave=30)
    other = {"id": read(folder / "to_label.csv")[0]["id"]}
    write(tmp_path / "a.csv", [{**other, "label": name_of(y, other)}])
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert "91 human labels were taken in, 91 of them new" in capsys.readouterr().err
    assert len(read(folder / "human_labels.csv")) == 91 and len(read(folder / "to_label.csv")) == 29
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert "1 human labels were taken in, 0 of them new" in capsys.readouterr().err


def test_questions_that_cannot_be_read_end_the_call_and_stay(points, tmp_path):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    answer(folder, y, folder / "to_label.csv")
    rows = read(folder / "to_label.csv")
    write(tmp_path / "a.csv", [{**rows[3], "label": ("dog", "cat")[rows[3]["label"] == "dog"]}])
    good = (folder / "to_label.csv").read_bytes()
    with pytest.raises(SystemExit, match="to_label.csv says '.*a.csv '.*; correct one"):
        autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert (folder / "to_label.csv").read_bytes() == good
    for spoilt in (good.replace(b"dog", b"cow"), good.decode().encode("utf-16"), good[:-3] + b',"c'):
        (folder / "to_label.csv").write_bytes(spoilt)
        with pytest.raises(SystemExit, match="to_label.csv"):
            autolabel.main([*SMALL, *arguments])
        assert (folder / "to_label.csv").read_bytes() == spoilt and read(folder / "human_labels.csv") == []


def test_what_is_filled_in_while_a_round_runs_is_not_written_over(points, monkeypatch):
    arguments, y = points
    folder = autolabel.main([*SMALL, *arguments])
    answer(folder, y, folder / "to_label.csv")
    advance = autolabel.tbal.advance

    def busy(*args):
        rows = read(folder / "to_label.csv")
        asked = {row["id"] for row in rows}
        write(
            folder / "to_label.csv",
            [*rows, {"id": next(f"p{i}" for i in range(300) if f"p{i}" not in asked), "label": "cat"}],
        )
        return advance(*args)

    monkeypatch.setattr(autolabel.tbal, "advance", busy)
    with pytest.raises(SystemExit, match="job were filled in while the program ran"):
        autolabel.main([*SMALL, *arguments])
    monkeypatch.undo()
    autolabel.main([*SMALL, *arguments])
    assert len(read(folder / "human_labels.csv")) == 121


def test_verdicts_on_the_audit_sample_stay_and_are_reported(points):
    arguments, y = points
    folder = finish(arguments, y)
    rows = read(folder / "audit.csv")
    assert len(rows) == 50 and "nobody has filled it in yet" in (folder / "report.md").read_text()
    for row, right in zip(rows, ["yes"] * 19 + ["No"], strict=False):
        row["right"] = right
    write(folder / "audit.csv", rows)
    before = (folder / "audit.csv").read_bytes()
    autolabel.main([*SMALL, *arguments])
    assert (folder / "audit.csv").read_bytes() == before
    upper = scipy.stats.beta.ppf(0.95, 2, 19)
    told = f"looked at 20 auto-labels of audit.csv, of which 1 are wrong; 95 % upper bound of the error {upper:.3f}"
    assert told in (folder / "report.md").read_text()
    rows[0]["right"] = "perhaps"
    write(folder / "audit.csv", rows)
    with pytest.raises(SystemExit, match="audit.csv: right must be yes or no, got 'perhaps'"):
        autolabel.main([*SMALL, *arguments])


def test_auto_labels_that_are_given_back_are_no_humans_and_corrected_ones_are(points, tmp_path, capsys):
    arguments, y = points
    folder = finish(arguments, y)
    rows = read(folder / "labels.csv")
    given = sum(row["source"] == "human" for row in rows)
    shutil.copy(folder / "labels.csv", tmp_path / "a.csv")
    capsys.readouterr()
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert f"{given} human labels were taken in, 0 of them new" in capsys.readouterr().err
    assert read(folder / "labels.csv") == rows
    # In place, without a word on the command line.
    wrong = next(row for row in rows if row["source"] == "auto")
    wrong["label"] = {"cat": "dog", "dog": "cat"}[wrong["label"]]
    write(folder / "labels.csv", rows)
    autolabel.main([*SMALL, *arguments])
    assert f"{given + 1} human labels were taken in, 1 of them new" in capsys.readouterr().err
    (now,) = (row for row in read(folder / "labels.csv") if row["id"] == wrong["id"])
    assert now["source"] == "human" and now["label"] == wrong["label"]
    write(tmp_path / "a.csv", [{name: row[name] for name in ("id", "label", "source")} for row in rows])
    with pytest.raises(SystemExit, match="a.csv has labels of source auto; without its column auto_label"):
        autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('id,label\np0,"cat\np1,dog\n', "line 3: unexpected end of data"),
        ('id,label\np0,"cat\np1,dog\np2,"dog\n', "line 4: ',' expected after"),
        ("id,label\np0,cat\np1,dog,p2\n", "line 3: as many fields as in the first line, 2, are needed, got 3"),
        ("id,label\np0,cat\np1\n", "line 3: as many fields .* got 1"),
        ("id,label,label\np0,cat,\n", "must have each column once, and has more than one label"),
        ('id,label\n"p\n0",cat\n', re.escape("1 ids are no points, such as 'p\\n0'")),
        ('id,label\np0,"ca\nt"\n', "1 labels are not among the classes"),
        (",cat\n", "must have a first line with id, label; it lacks id, label"),
        ("id,label\n,cat\n", "1 ids are no points, such as ''"),
        (f"id,label\np0,{'c' * 200_000}\n", "line 2: field larger than field limit"),
        ("", "must have a first line with id, label"),
    ],
)
def test_a_malformed_csv_is_refused_as_a_whole(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=f"a.csv.*{message}"):
        autolabel_files.read_labels(tmp_path / "a.csv", ["p0", "p1", "p2"], ["cat", "dog"])


def test_blanks_and_marks_around_ids_and_classes_count_nowhere(points, tmp_path):
    arguments, _ = points
    (tmp_path / "ids.txt").write_text("".join(f"p{i} \r\n" for i in range(300)), "utf-8-sig")
    classes = ("--classes", "cat ", " dog")
    folder = autolabel.main([*SMALL, *arguments, *classes])
    assert {row["id"] for row in read(folder / "to_label.csv")} < {f"p{i}" for i in range(300)}
    (tmp_path / "a.csv").write_text(" id,label\np0 , cat\n\n,\n", "utf-8-sig")
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "a.csv")])
    assert read(folder / "human_labels.csv") == [{"id": "p0", "label": "cat"}]
    (tmp_path / "ids.txt").write_text("p0\n \n" + "".join(f"p{i}\n" for i in range(2, 300)))
    with pytest.raises(SystemExit, match="ids.txt: 1 ids are empty or have a line break, such as ''"):
        autolabel.main([*SMALL, *arguments])


def test_a_threshold_of_all_classes_is_told_once_a_round(points):
    arguments, y = points
    lines = (finish(arguments, y) / "report.md").read_text().splitlines()
    table = [line for line in lines if re.match(r"\| 1 ", line)]
    assert len(table) == 1 and "cat" not in table[0]
    config = ("--per-class", "--threshold-points", "100", "--out", f"{arguments[-1]}2")
    lines = (finish([*arguments, *config], y) / "report.md").read_text().splitlines()
    assert [re.split(r" *\| *", line)[1:3] for line in lines if re.match(r"\| 1 ", line)] == [
        ["1", "cat"],
        ["1", "dog"],
    ]


def test_the_report_counts_what_labels_csv_holds_also_where_a_human_labelled_more(points, tmp_path, capsys):
    arguments, y = points
    write(tmp_path / "had.csv", [{"id": f"p{i}", "label": ("cat", "dog")[y[i]]} for i in range(150)])
    autolabel.main([*SMALL, *arguments, "--labels", str(tmp_path / "had.csv")])
    folder = finish(arguments, y)
    rows, report = read(folder / "labels.csv"), (folder / "report.md").read_text()
    auto = [row["label"] for row in rows if row["source"] == "auto"]
    human = [row["label"] for row in rows if row["source"] == "human"]
    assert f"{len(human)} were labelled by a human and {len(auto)} automatically" in report
    (of_round,) = re.findall(r"^\| 1 .* (\d+)\.?0* \|$", report, re.MULTILINE)
    assert int(of_round) == len(auto) > 0
    for name in ("cat", "dog"):
        counts = [human.count(name), auto.count(name)]
        assert [float(c) for c in re.findall(rf"^\| {name} +\| +(\S+) \| +(\S+) \|", report, re.MULTILINE)[0]] == counts
    told = f"Of {len(human)} human labels 120 were asked for and used, {len(human) - 120} were not needed."
    assert told in report and told in capsys.readouterr().err


def test_no_label_is_asked_for_that_could_certify_nothing(points, tmp_path, capsys):
    arguments, y = points
    bring_closer(tmp_path, y, 2.2)
    folder = finish(arguments, y)
    told = r"Stopped after round 1 of 2: the rule has left (\d+) threshold points, too few .* takes 29 without an error"
    assert int(re.search(told, (folder / "report.md").read_text())[1]) < 29
    assert len(read(folder / "human_labels.csv")) == 120 and re.search(told, capsys.readouterr().err)


def test_a_job_that_certified_nothing_says_so_and_why(points, capsys):
    arguments, _ = points
    folder = finish(arguments, np.random.default_rng(5).integers(0, 2, 300))
    assert len(read(folder / "human_labels.csv")) == 130 and read(folder / "audit.csv") == []
    told = "Nothing could be certified: the classifier is not good enough."
    report = (folder / "report.md").read_text()
    assert told in report and told in capsys.readouterr().err and "are certified" not in report


@pytest.mark.parametrize("where", ["tbal.advance", "Checkpointer.save", "outcome", "report"])
def test_a_job_that_is_interrupted_goes_on_to_the_same_end(points, tmp_path, monkeypatch, capsys, where):
    arguments, y = points
    bring_closer(tmp_path, y, 1.8)
    arguments += ["--threshold-points", "100"]
    expected = finish([*arguments, "--out", str(tmp_path / "other")], y)
    capsys.readouterr()

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    folder, codes = tmp_path / "job", set()
    while not (folder / "report.md").is_file():
        if (folder / "to_label.csv").is_file():
            answer(folder, y, folder / "to_label.csv")
        with monkeypatch.context() as patch:
            patch.setattr(f"experiments.autolabel.{where}", interrupt)
            try:
                autolabel.main([*SMALL, *arguments])
            except SystemExit as end:
                codes.add(end.code)
        autolabel.main([*SMALL, *arguments, "--labels", str(folder / "to_label.csv")])
    assert len(read(folder / "human_labels.csv")) == 170 and {"1", "2"} < {
        r["round"] for r in read(folder / "labels.csv")
    }
    assert codes == {130} and "interrupted; the same command goes on" in capsys.readouterr().err
    # Also when the questions are gone, which the command line still names.
    autolabel.main([*SMALL, *arguments, "--labels", str(folder / "to_label.csv")])
    for name in ("labels.csv", "audit.csv", "human_labels.csv", "job.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must be a .npy file of numbers"),
        (b"1.0,2.0\n", "must be a .npy file of numbers"),
        (b"PK\x03\x04 as of an .npz", "must be a .npy file of numbers"),
        (np.array([[None]]), "must be a .npy file of numbers"),
        (np.array([["a"]]), "must hold numbers of shape"),
        (np.zeros(3), "must hold numbers of shape"),
        (np.array([[1.0], [1e300]]), "must be finite as float32; 1 rows are not, the first is row 1"),
    ],
)
def test_features_that_are_no_array_of_numbers_are_told_in_one_line(tmp_path, content, message):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(SystemExit, match=f"x.npy {message}") as end:
        autolabel.main([*SMALL, "--features", str(path)])
    assert "\n" not in str(end.value.code)


def test_folders_that_cannot_be_are_told_in_one_line(points, tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/job"):
        with pytest.raises(SystemExit, match="--out must be a folder that can be written to, and .*file is not$"):
            autolabel.main([*SMALL, *points[0], "--out", str(tmp_path / out)])


def test_a_read_that_fails_is_told_in_one_line(points, monkeypatch):
    def fail(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(SystemExit, match="Permission denied: '.*ids.txt'$"):
        autolabel.main([*SMALL, *points[0]])


def test_human_labels_that_were_edited_by_hand_are_refused(points):
    arguments, y = points
    folder = finish(arguments, y)
    rows = read(folder / "human_labels.csv")
    (folder / "labels.csv").unlink()
    for label, message in (
        ("cow", "1 labels are not among the classes"),
        ("", "must say '.*' of '.*', which .* got ''"),
    ):
        write(folder / "human_labels.csv", [{**rows[0], "label": label}, *rows[1:]])
        with pytest.raises(SystemExit, match=f"human_labels.csv.*{message}"):
            autolabel.main([*SMALL, *arguments])


def test_each_column_of_the_features_has_unit_variance_whatever_its_scale():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(500, 3))
    x = np.stack([noise[:, 0], 1.7e15 + noise[:, 1], 1e-20 * noise[:, 2], np.full(500, 0.1)], axis=1)
    scaled = np.asarray(autolabel_job.features_of(Job(("a", "b")), Points(tuple("ab"), x, None)))
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 1, 0], atol=1e-5)
    np.testing.assert_allclose(scaled[:, 2], (noise[:, 2] - noise[:, 2].mean()) / noise[:, 2].std(), atol=1e-5)
    assert not scaled[:, 3].any()


def test_colander_chooses_its_step_at_the_error_and_the_kind_of_threshold_of_the_job():
    job = Job(("a", "b"), confidence="Colander", error=0.01)
    colander = autolabel_job.settings(job, 3).confidence
    assert colander.error == 0.01 and colander.shared
    job = Job(("a", "b"), confidence="Colander", per_class=True)
    assert not autolabel_job.settings(job, 3).confidence.shared


@pytest.mark.slow
def test_texts_are_embedded_and_shown_beside_the_questions(tmp_path, encoder):
    rows = [(f"t{i}", f"{'meow purr' if i % 2 else 'woof bark'} word{i % 7}") for i in range(200)]
    autolabel_files.write(tmp_path / "t.csv", ("id", "text"), rows)
    folder = autolabel.main([*SMALL, "--texts", str(tmp_path / "t.csv"), "--out", str(tmp_path / "job")])
    asked = read(folder / "to_label.csv")
    assert len(asked) == 120 and all(row["text"] == dict(rows)[row["id"]] for row in asked)
