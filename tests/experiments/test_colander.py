"""The Colander experiment on digits at a small scale, and its checks."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import colander, colander_problems, colander_report, colander_simulation, runner
from experiments.colander_config import Cells, UnitBall
from zsml_jax.autolabel import Oracle, mlp, tbal
from zsml_jax.autolabel.confidence import Colander
from zsml_jax.data.dataset import Dataset

TINY = (
    *("--objectives", "cross_entropy", "--post-hoc", "Softmax", "Colander", "--seeds", 2, "--errors", 0.05, 0.2),
    *("--epochs", 5, "--roles", 20, 60, 200, 60, "--seed-points", 60, "--batch-points", 40, "--budget", 100),
    *("--method", "sigma", "--widths", 8, "--published", "mnist"),
)


def run(tmp_path, *arguments):
    command = [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")]
    return runner.main(colander.run, "colander", command)


@pytest.mark.slow
def test_a_run_reports_every_cell_beside_the_published_figure_and_resumes_without_work(tmp_path, monkeypatch):
    folder = run(tmp_path, "digits", *TINY)
    report = (folder.path / "report.md").read_text()
    for said in (
        "Every cell",
        "Does Colander beat the softmax",
        "eak alarm",
        "AL+SC",
        "true correctness",
        "95.6",
    ):
        assert said in report
    for name in ("cells", "error_by_coverage", "coverage_by_epsilon", "error_by_epsilon"):
        assert (folder.path / f"{name}.png").stat().st_size > 1000
    monkeypatch.setattr(colander, "cell", lambda *a: pytest.fail("measured again"))
    again = run(tmp_path, "digits", *TINY, "--resume")
    assert again.path == folder.path


@pytest.mark.slow
def test_a_cell_is_the_run_with_an_oracle_of_the_same_key(tmp_path):
    config = Cells(
        errors=(0.05, 0.1), seeds=2, epochs=4, method="sigma", widths=(8,), roles=(20, 60, 200, 60),
        seed_points=60, batch_points=40, budget=100,
    )  # fmt: skip
    problem = colander_problems.load(config)
    measured = colander.cell(config, problem, "cross_entropy", "TS")
    settings = colander.settings(config, problem, "cross_entropy", "TS")
    key = colander.jax.random.split(colander.jax.random.key(0), 2)[1]
    state = tbal.run(problem.features, Oracle(problem.labels), settings, key=key)
    np.testing.assert_allclose(measured[0][1]["coverage"], state.coverage, atol=0.02)
    np.testing.assert_allclose(measured[0][1]["error"], state.error(problem.labels), atol=0.02)
    assert measured[0][1]["spent"] == state.spent


def test_images_are_pixels_from_0_to_1_or_255_or_features_of_an_image_net(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1)).astype(np.uint8)
    part = Dataset("pictures", "all", images, np.arange(20) % 2, ("even", "odd"))
    monkeypatch.setattr(colander_problems.data, "load", lambda *args, **options: part)
    seen = []
    net = lambda x: seen.append(x) or np.arange(60.0).reshape(20, 3)
    monkeypatch.setattr(colander_problems.image_features, "image_net", net)
    load = lambda **options: colander_problems.load(Cells(dataset="pictures", **options)).features
    np.testing.assert_allclose(load(net="lenet5"), images / images.max(), rtol=1e-6)
    np.testing.assert_allclose(load(net="lenet5", raw_pixels=True), 255 * (images / images.max()), rtol=1e-6)
    features = load(net="efficientnet")
    np.testing.assert_allclose(seen[0], images / images.max(), rtol=1e-6)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-6)
    assert features.shape == (20, 3)
    part = dataclasses.replace(part, inputs=np.ones((20, 64)))
    with pytest.raises(ValueError, match="net must be mlp for rows of 64 numbers"):
        load(net="efficientnet")


@pytest.mark.parametrize(
    ("net", "shape", "width"),
    [("lenet5", (28, 28, 1), 84), ("lenet5", (32, 32, 3), 84), ("cifar-net", (32, 32, 3), 512)],
)
def test_an_image_net_gives_logits_and_the_activations_before_them(net, shape, width):
    classifier = colander_problems.image_classifier(net, shape, 5)
    images = jax.ShapeDtypeStruct((2, *shape), np.float32)
    outputs = jax.eval_shape(lambda key, x: classifier.apply(classifier.init(key), x), jax.random.key(0), images)
    assert outputs.logits.shape == (2, 5) and outputs.hidden.shape == (2, width)


@pytest.mark.slow
def test_seeds_that_take_turns_have_results_of_their_own(monkeypatch):
    rng = np.random.default_rng(0)
    part = Dataset("pictures", "all", rng.normal(size=(60, 32, 32, 3)) ** 2, rng.integers(0, 2, 60), ("a", "b"))
    monkeypatch.setattr(colander_problems.data, "load", lambda *args, **options: part)
    config = Cells(
        dataset="pictures", net="cifar-net", errors=(0.5,), main_error=0.5, seeds=2, epochs=1, method="none",
        min_count=0, roles=(4, 8, 8, 4), seed_points=8, batch_points=8, budget=16, released="cifar10",
    )  # fmt: skip
    problem = colander_problems.load(config)
    ((first, second),) = colander.cell(config, problem, "cross_entropy", "Softmax")
    assert first["spent"] == second["spent"] == 4 + 8 + 8 + 4 + 16
    assert first != second and 0 < first["coverage"] <= 1


def test_released_settings_are_those_of_each_objective_and_leave_the_repaired_colander_alone():
    config = Cells(released="mnist", widths=(4,), objectives=("cross_entropy", "fmfp"))
    problem = colander_problems.Problem(np.zeros((2000, 3)), np.zeros(2000, int), 2, mlp(3, (4,), 2))
    found = colander.settings(config, problem, "fmfp", "Colander (paper)")
    assert (found.training.learning_rate, found.training.weight_decay) == (0.01, 1e-3)
    assert found.confidence == Colander.paper(100.0, 0.1, 0.1, 1.0)
    assert colander.settings(config, problem, "fmfp", "Colander").confidence == Colander(penalty=10.0, error=0.05)
    with pytest.raises(ValueError, match="released must be a set with settings of all objectives"):
        colander.check(dataclasses.replace(config, objectives=("mixup",)))


def test_points_of_the_unit_ball_lie_in_it_uniformly_and_a_plane_divides_them():
    x, labels = colander_problems.unit_ball(colander.jax.random.key(0), 4000, 5)
    radius = np.linalg.norm(x, axis=1)
    assert radius.max() <= 1 + 1e-6
    # Of a uniform point in d dimensions, radius^d is uniform.
    np.testing.assert_allclose(np.mean(radius**5), 0.5, atol=0.03)
    assert 0.4 < labels.mean() < 0.6


def test_a_leak_raises_the_alarm_and_an_honest_cell_does_not(tmp_path):
    class Document(list):
        text = list.append

    config = Cells(post_hoc=("Softmax", "Colander"), objectives=("cross_entropy", "fmfp"), errors=(0.05,))
    runs = lambda *coverage, error=0.04: [[{"coverage": c, "error": error} for c in coverage]]
    knowing = {"cross_entropy": runs(0.8, 0.81, 0.82, error=0.0), "fmfp": runs(0.8, 0.8, 0.8, error=0.0)}
    # Rightly labelled are 0.96 of it: always fewer, more but within the scatter of seeds, always more.
    for coverage, alarm in (((0.8, 0.81, 0.8), False), ((0.85, 0.92, 0.82), False), ((0.9, 0.92, 0.91), True)):
        document = Document()
        cells = {(objective, name): runs(0.4, 0.41, 0.4) for objective in config.objectives for name in config.post_hoc}
        cells["fmfp", "Colander"] = runs(*coverage)
        colander_report._tell_alarm(document, config, cells, knowing)
        told = "Leak alarm: paired by seed, Colander with fmfp labels" if alarm else "No leak alarm"
        assert document[0].startswith(told)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--post-hoc", "Softmax", "Platt"), "post_hoc must be among Softmax, .* got Platt"),
        (("--main-error", 0.07), r"main_error must be one of errors \(0.05, 0.2\), got 0.07"),
        (("--seeds", 1), "seeds must be at least 2, got 1"),
        (("--simulations", 0), "simulations must be at least 1, got 0"),
        (("--dataset", "nothing"), "there is no data set 'nothing'"),
        (("--net", "lenet5"), "net must be mlp for images that are neither 28 nor 32"),
        (("--budget", 5000), "features must have more rows"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, "digits", *TINY, *arguments)


@pytest.mark.slow
def test_the_unit_ball_is_reported_beside_the_published_figures(tmp_path):
    assert UnitBall().validation == tuple(colander_report.PUBLISHED_BALL["TBAL"])
    assert UnitBall().budgets == tuple(colander_report.PUBLISHED_BALL_BY_BUDGET["TBAL"])
    small = ("--n", 1500, "--seeds", 2, "--epochs", 10, "--budget", 200)
    sweeps = ("--validation", 100, 400, "--budgets", 100, 200, "--many", 500)
    folder = run(tmp_path, "unit_ball", *small, *sweeps)
    report = (folder.path / "report.md").read_text()
    for said in ("93.27", "3.10", "95.28", "0.78", "59.41", "TBAL with 500 labelled points"):
        assert said in report
    for name in ("error_by_labelled_points", "error_by_queries"):
        assert (folder.path / f"{name}.png").stat().st_size > 1000


@pytest.mark.slow
def test_certified_thresholds_keep_their_promise_in_simulations_and_the_others_do_not():
    found = {
        rule: colander_simulation.violations(
            rule, n=600, n_classes=2, error=0.05, failure=0.1, min_count=10, simulations=300, key=jax.random.key(0)
        )
        for rule in colander_simulation.RULES
    }
    # Above s the error is (1 - s)^2 / 6, so that a share sqrt(6 epsilon) is the most that keeps epsilon. Three standard
    # deviations of a share of 0.1 over 300 simulations are 0.052.
    for rule in ("certified", "certified, one for all classes"):
        assert found[rule]["violations"] <= 0.152 and 0.15 < found[rule]["coverage"] < 0.3**0.5
    assert found["none"]["violations"] > 0.3
