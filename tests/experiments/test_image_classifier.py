"""The image classifier experiment on scikit-learn's digits, and on the real sets where they are."""

import json
import shutil

import numpy as np
import pytest

from experiments import image_classifier, runner


def run(tmp_path, *arguments):
    return runner.main(
        image_classifier.run, "image_classifier", [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")]
    )


SMALL = ("mnist_study", "--dataset", "digits", "--epochs", "3", "--batch-size", "32", "--seeds", "2")
STUDY = (*SMALL, "--learning-rates", "1e-5", "1e-2", "1e30")


def figures(folder, epoch):
    return folder.cached(f"epoch {epoch}", lambda: pytest.fail("was not kept"))


@pytest.mark.slow
def test_a_study_finds_the_learning_rate_that_learns_and_marks_those_that_diverge(tmp_path):
    folder = run(tmp_path, *STUDY)
    rows = figures(folder, 3)
    assert [row["finite"] for row in rows] == [True] * 4 + [False] * 2
    accuracy = np.array([row["test"] for row in rows]).reshape(3, 2).mean(1)
    assert accuracy[1] > 0.93 > 0.5 > accuracy[0]
    report = (folder.path / "report.md").read_text()
    assert "Validation chooses the learning rate 0.01" in report
    assert "Mean and 95 % t interval over 2 seeds." in report
    for name in ("rates", "epochs"):
        assert f"]({name}.png)" in report
        assert (folder.path / f"{name}.png").stat().st_size > 1000
    assert [line["diverged"] for line in folder.metrics()] == [2, 2, 2]


@pytest.mark.slow
def test_a_resumed_study_goes_on_from_its_checkpoint_to_the_same_figures(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", *STUDY)
    remember = image_classifier.remember

    def interrupted(folder, epoch, study):
        if epoch == 2:
            raise KeyboardInterrupt
        remember(folder, epoch, study)

    monkeypatch.setattr(image_classifier, "remember", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *STUDY)
    monkeypatch.setattr(image_classifier, "remember", remember)
    monkeypatch.setattr(image_classifier.sweep, "run", lambda *a, **k: pytest.fail("began again"))
    resumed = run(tmp_path, *STUDY, "--resume")
    for epoch in (1, 2, 3):
        assert json.dumps(figures(resumed, epoch)) == json.dumps(figures(whole, epoch))


@pytest.mark.parametrize("net", ["mlp", pytest.param("wrn-10-1", marks=pytest.mark.slow)])
def test_one_trial_needs_no_study(tmp_path, net):
    folder = run(tmp_path, "mnist", "--dataset", "digits", "--net", net, "--epochs", "1", "--train-examples", "256")
    report = (folder.path / "report.md").read_text()
    assert "One seed." in report and "256 train" in report
    assert not (folder.path / "rates.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--net", "alexnet"), "there is no net 'alexnet'"),
        (("--net", "lenet5"), "at least 16 pixels"),
        (("--dataset", "emnist"), "there is no data set 'emnist'"),
        (("--dataset", "trec"), "dataset must hold images"),
        (("--epochs", "0"), "epochs must be at least 1, got 0"),
        (("--learning-rates", "0.1", "-1"), "learning_rates must be positive"),
        (("--batch-size", "5000"), "batch_size must be at most"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_no_folder(tmp_path, arguments, message, unchecked_types):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *SMALL, *arguments)
    assert not list((tmp_path / "runs").rglob("config.json"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("mnist", 0.85), ("fashion_mnist", 0.65)])
def test_lenet_learns_the_real_sets(tmp_path, shared_data, name, least):
    folder = run(
        tmp_path,
        name,
        "--data-dir",
        shared_data / "tfds",
        "--epochs",
        "2",
        "--train-examples",
        "6000",
        "--learning-rates",
        "3e-3",
    )
    (row,) = figures(folder, 2)
    assert row["test"] > least
    shutil.rmtree(folder.checkpoints)
