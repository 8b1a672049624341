import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from zsml_jax.report import RunFolder, Table, run


def make(root, **config):
    return RunFolder.create(root, "otter", "bbc", {"epsilon": 0.1, **config})


def test_a_run_lies_under_its_experiment_and_preset_with_its_config(tmp_path):
    folder = make(tmp_path)
    assert folder.path.parent == tmp_path / "otter" / "bbc"
    assert re.fullmatch(r"\d{8}-\d{6}-\d{3}", folder.path.name)
    assert json.loads((folder.path / "config.json").read_text()) == {"epsilon": 0.1}
    reopened = RunFolder.open(folder.path)
    assert (reopened.experiment, reopened.preset, reopened.config) == ("otter", "bbc", {"epsilon": 0.1})


@pytest.mark.parametrize("root", ["gs://bucket/runs", Path("s3://bucket/runs")])
def test_a_bucket_is_refused(root):
    with pytest.raises(ValueError, match="must be a folder that this machine sees, got"):
        make(root)
    with pytest.raises(ValueError, match="only checkpoints may be in a bucket"):
        RunFolder.resume(root, "otter", "bbc", {})


def test_ids_sort_by_time_also_within_a_millisecond(tmp_path):
    paths = [make(tmp_path).path for _ in range(20)]
    assert paths == sorted(paths)
    assert len(set(paths)) == 20


def test_resume_finds_the_newest_run_of_its_preset(tmp_path):
    make(tmp_path)
    time.sleep(0.002)
    newest = make(tmp_path)
    time.sleep(0.002)
    RunFolder.create(tmp_path, "otter", "trec", {"epsilon": 0.1})
    assert RunFolder.resume(tmp_path, "otter", "bbc", {"epsilon": 0.1}).path == newest.path
    with pytest.raises(FileNotFoundError, match="no run to resume in .*loki/bbc"):
        RunFolder.resume(tmp_path, "loki", "bbc", {})


def test_a_folder_that_a_killed_run_left_without_a_config_is_passed_over(tmp_path):
    folder = make(tmp_path)
    (folder.path.parent / "99990101-000000-000").mkdir()
    assert RunFolder.resume(tmp_path, "otter", "bbc", {"epsilon": 0.1}).path == folder.path
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        RunFolder.open(folder.path.parent / "99990101-000000-000")


def test_another_config_is_refused_field_by_field_and_nan_is_equal_to_itself(tmp_path):
    RunFolder.create(tmp_path, "otter", "bbc", {"a": {"b": 1, "c": (1, 2)}, "d": float("nan"), "old": 0})
    same = {"a": {"b": 1, "c": [1, 2]}, "d": float("nan"), "old": 0}
    RunFolder.resume(tmp_path, "otter", "bbc", same)
    with pytest.raises(ValueError, match="cannot resume") as error:
        RunFolder.resume(tmp_path, "otter", "bbc", {"a": {"b": 2, "c": [1, 2]}, "d": float("nan"), "new": 1})
    assert str(error.value).splitlines()[1:] == [
        "  a.b: saved 1, given 2",
        "  old: saved 0, given '(absent)'",
        "  new: saved '(absent)', given 1",
    ]


def test_a_part_is_computed_once_and_looks_the_same_the_first_and_the_next_time(tmp_path):
    calls = []

    def part():
        calls.append(1)
        return {"accuracy": np.float32(0.5), "counts": np.arange(3), "pair": (1, 2)}

    folder = make(tmp_path)
    assert not folder.done("bbc/seed=3")
    first = folder.cached("bbc/seed=3", part)
    assert folder.done("bbc/seed=3")
    again = RunFolder.open(folder.path).cached("bbc/seed=3", part)
    assert first == again == {"accuracy": 0.5, "counts": [0, 1, 2], "pair": [1, 2]}
    assert len(calls) == 1
    assert not folder.done("bbc/seed=4")
    assert folder.cached("nothing", lambda: None) is None
    assert folder.done("nothing")


def test_parts_of_like_names_do_not_meet(tmp_path):
    folder = make(tmp_path)
    names = ["a/b", "a b", "a%2Fb", "../a", "ä"]
    for name in names:
        folder.cached(name, lambda name=name: name)
    assert [folder.cached(name, lambda: "computed again") for name in names] == names
    assert len(list((folder.path / "results").iterdir())) == len(names)
    with pytest.raises(ValueError, match="key must name the part"):
        folder.cached("", lambda: 1)


def test_a_part_that_fails_is_not_remembered(tmp_path):
    folder = make(tmp_path)

    def fail():
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        folder.cached("x", fail)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        folder.cached("x", object)
    assert not folder.done("x")


def test_metrics_are_logged_with_their_step_and_time(tmp_path):
    folder = make(tmp_path)
    assert folder.metrics() == []
    folder.log(1, loss=0.5, accuracy={"bbc": np.float64(0.25)})
    folder.log(total=3)
    first, second = folder.metrics()
    assert (first["step"], first["loss"], first["accuracy"]) == (1, 0.5, {"bbc": 0.25})
    assert abs(first["time"] - time.time()) < 60
    assert "step" not in second and second["total"] == 3
    with pytest.raises(ValueError, match=r"must not be called \['time'\]"):
        folder.log(time=1)


def test_every_writer_that_was_added_gets_the_metrics_and_is_closed(tmp_path):
    class Recorder:
        def __init__(self):
            self.seen, self.closed = [], False

        def write(self, step, metrics):
            self.seen.append((step, dict(metrics)))

        def close(self):
            self.closed = True

    folder, recorder = make(tmp_path), Recorder()
    folder.add_writer(recorder)
    folder.log(3, x=1)
    folder.close()
    assert recorder.seen == [(3, {"x": 1})]
    assert recorder.closed


def test_processes_other_than_the_lead_write_no_report_and_no_metrics(tmp_path, monkeypatch):
    folder = make(tmp_path)
    before = sorted(folder.path.iterdir())
    monkeypatch.setattr(run.jax, "process_index", lambda: 1)
    follower = RunFolder.open(folder.path)
    follower.log(1, x=1)
    document = follower.document("Title")
    document.table(Table(["a"]))
    document.write()
    assert follower.cached("part", lambda: (1, 2)) == [1, 2]
    assert sorted(folder.path.iterdir()) == before


def test_the_report_ends_in_command_environment_and_config(tmp_path):
    folder = make(tmp_path)
    path = folder.document("OTTER").write()
    text = path.read_text()
    assert text.startswith("# OTTER\n\n```sh\npython")
    assert "## Environment" in text
    assert '"epsilon": 0.1' in text
