"""The synthetic experiments, small: the best possible answer is known."""

import numpy as np
import pytest

from experiments import runner, synthetic


def run(tmp_path, *arguments):
    return runner.main(synthetic.run, "synthetic", [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")])


BAYES = ("bayes_recovery", "--target-rates", "0.9", "0.15", "--n", "1500", "--repeats", "2")


@pytest.mark.slow
def test_otter_comes_near_bayes_under_a_strong_shift_and_the_argmax_does_not(tmp_path):
    folder = run(tmp_path, *BAYES)
    shifted = folder.cached("rate 0.15", lambda: pytest.fail("was not kept"))
    assert len(shifted) == 2
    mean = {name: np.mean([row[name] for row in shifted]) for name in shifted[0]}
    assert mean["naive"] < 0.65
    assert mean["OTTER"] > mean["Bayes"] - 0.03
    assert mean["entropic, 1 nat"] == pytest.approx(mean["Bayes"], abs=0.02)
    report = (folder.path / "report.md").read_text()
    assert "| 0.15 " in report.replace("|          0.15", "| 0.15 ")
    assert "![rates](rates.png)" in report
    assert (folder.path / "rates.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_resumed_recovery_draws_only_the_rate_that_is_missing(tmp_path, monkeypatch):
    first = run(tmp_path, *BAYES)
    (first.path / "results" / "rate 0.9.json").unlink()
    drawn, shifted = [], synthetic.shifted
    monkeypatch.setattr(synthetic, "shifted", lambda *a: drawn.append(a[1:]) or shifted(*a))
    assert run(tmp_path, *BAYES, "--resume").path == first.path
    assert drawn == [(0.9, 0), (0.9, 1)]


def test_roboshot_lifts_the_worst_of_the_four_gaussians_and_noise_takes_it_back(tmp_path):
    folder = run(tmp_path, "gaussians", "--insight-noise", "0", "0.5", "--n-per-group", "300", "--repeats", "5")
    clean = folder.cached("noise 0.0", lambda: pytest.fail("was not kept"))
    noisy = folder.cached("noise 0.5", lambda: pytest.fail("was not kept"))
    assert np.shape(clean["RoboShot, worst group"]) == (5,)
    assert np.mean(clean["RoboShot, worst group"]) > 0.95
    assert np.mean(clean["zero-shot, worst group"]) < 0.6
    assert np.mean(noisy["RoboShot, worst group"]) < np.mean(clean["RoboShot, worst group"])
    assert "over 5 draws of 1200 examples" in (folder.path / "report.md").read_text()


def test_the_chosen_next_class_grows_the_locus_no_slower_than_a_random_one(tmp_path):
    folder = run(tmp_path, "next_class", "--nodes", "25", "--steps", "5", "--trials", "3")
    trials = [folder.cached(f"trial {i}", lambda: pytest.fail("was not kept")) for i in range(3)]
    for trial in trials:
        assert len(trial["farthest"]) == len(trial["random"]) == 6
        assert trial["farthest"][0] == trial["random"][0] >= 3
        assert all(np.diff(trial["farthest"]) >= 0)
    assert np.mean([t["farthest"][-1] for t in trials]) > np.mean([t["random"][-1] for t in trials])
    assert "Random trees of 25 nodes, 3 observed classes" in (folder.path / "report.md").read_text()
