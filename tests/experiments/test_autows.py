import csv
import json

import numpy as np
import pytest
import scipy.special

from experiments import autows, autows_data, autows_features, autows_methods, autows_report, label, runner
from experiments.autows_data import Content
from experiments.autows_features import Options, Problem
from tests.models import tiny_clip
from tests.weaksup.partly import blobs
from zsml_jax import models
from zsml_jax.data.dataset import Dataset
from zsml_jax.report import RunFolder

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


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["images", "texts"])
def test_clip_gives_class_probabilities_as_features_and_as_a_baseline(kind, tmp_path):
    pytest.importorskip("transformers", reason="needs the oracle extra")
    tiny_clip.save_tiny_clip(tmp_path)
    tiny_clip.write_tokenizer(tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 12, 12, 3)) / 255
    inputs = {"images": images, "texts": [f"{a} {b}" for a in "abcde" for b in "st"]}[kind]
    prompts = ("ab c", "the ba", "c c 1")
    content = Content(inputs[:6], np.arange(6) % 3, inputs[6:], np.arange(4) % 3, prompts)
    problem = autows_features.compute(content, "clip", Options(clip=str(tmp_path)))
    loaded = models.load(tmp_path)
    texts = models.text_encoder(loaded, cache=False)(prompts)
    pictures = [np.round(255 * image).astype(np.uint8) for image in images]
    embedded = models.image_encoder(loaded)(pictures) if kind == "images" else models.text_encoder(loaded)(inputs)
    expected = scipy.special.softmax(100 * embedded @ texts.T, axis=1)
    np.testing.assert_allclose(problem.x, expected[:6], atol=2e-4)
    np.testing.assert_allclose(problem.test_x, expected[6:], atol=2e-4)
    found = autows_methods.measure(problem, "zero_shot", count=3, stratified=True, seed=0)
    assert found["accuracy"] == pytest.approx(np.mean(expected[6:].argmax(axis=1) == content.test_labels))
    assert found["end_model"] is not None


def test_a_sentence_encoder_knows_the_classes_by_their_prompts(monkeypatch):
    directions = {"cats": 0, "dogs": 1, "about cats": 0, "about dogs": 1}
    encode = lambda texts: np.eye(2, dtype=np.float32)[[directions[text] for text in texts]]
    monkeypatch.setattr(autows_features.models, "text_encoder", lambda source: encode)
    inputs = ["cats", "dogs"] * 3
    content = Content(inputs, np.arange(6) % 2, inputs[:4], np.arange(4) % 2, ("about cats", "about dogs"))
    embedded = autows_features.compute(content, "minilm", Options())
    np.testing.assert_array_equal(embedded.x, encode(inputs))
    asked = autows_features.compute(content, "minilm_classes", Options())
    np.testing.assert_allclose(asked.x, embedded.zero_shot)
    for problem in (embedded, asked):
        found = autows_methods.measure(problem, "zero_shot", count=4, stratified=True, seed=0)
        assert (found["accuracy"], found["coverage"], found["end_model"]) == (1.0, 1.0, 1.0)


def test_zero_shot_is_for_features_of_a_model_that_knows_the_classes(tmp_path):
    for features in (["raw"], ["raw", "minilm_classes"]):
        arguments = ["small", "--datasets", "wine", "--methods", "zero_shot", "--features", *features]
        with pytest.raises(SystemExit, match="features and methods must suit one of the data sets, got raw"):
            runner.main(autows.run, "autows", [*arguments, "--runs-dir", str(tmp_path)])


def test_a_method_that_runs_on_some_problems_alone_is_shown_and_not_ranked(tmp_path):
    accuracies = {"few_shot": 0.8, "snuba": 0.6, "goggles": 0.7, "zero_shot": 0.9}
    results = {
        ("bbc_news", kind, method, seed): {
            "accuracy": accuracy, "coverage": 1.0, "adjusted": accuracy + 0.01 * seed, "end_model": None
        }
        for kind in ("raw", "pca", "minilm")
        for method, accuracy in accuracies.items()
        if autows_methods.applies(method, kind)
        for seed in range(2)
    }  # fmt: skip
    folder = RunFolder.create(tmp_path, "autows", "some", {})
    autows_report.write(folder, results, seeds=2, labels=10)
    report = (folder.path / "report.md").read_text()
    assert "Left out, since they do not run on every problem: zero_shot." in report
    assert "over 3 problems" in report
    assert "zero_shot" in {row["method"] for row in folder.metrics()}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["few_shot_tuned", "snuba", "snuba_multipolar", "iws", "goggles_released"])
def test_every_method_labels_better_than_a_guess(method):
    x, truth, _ = blobs(n=300, k=3, d=6)
    problem = Problem(np.asarray(x)[:200], truth[:200], np.asarray(x)[200:], truth[200:])
    found = autows_methods.measure(problem, method, count=60, stratified=True, seed=0)
    assert found["adjusted"] > 0.45
    assert found["accuracy"] > 0.6
    assert found["end_model"] is None or found["end_model"] > 0.5


@pytest.mark.parametrize("method", ["snuba", "snuba_multipolar", "iws"])
def test_features_that_tell_nothing_are_labelled_by_none_and_stop_no_grid(method):
    x, y = np.repeat(np.arange(30.0, dtype=np.float32), 4)[:, None], np.tile([0, 1], 60)
    # Numbers of two columns, of which neighbours, too, know nothing.
    problem = Problem(np.hstack([x, x]), y, np.hstack([x, x]), y)
    found = autows_methods.measure(problem, method, count=len(y), stratified=True, seed=0)
    assert found == {"accuracy": None, "coverage": 0.0, "adjusted": 0.5, "end_model": None}


def wrench(labels):
    return json.dumps({str(i): {"label": y, "data": {"text": f"text {i} of {y}"}} for i, y in enumerate(labels)})


def test_the_papers_texts_are_read_as_wrench_ships_them(tmp_path):
    (tmp_path / "youtube").mkdir()
    for split, labels in {"train": [0, 1, 1], "test": [1, 0]}.items():
        (tmp_path / "youtube" / f"{split}.json").write_text(wrench(labels))
    content = autows_data.load("youtube", data_dir=tmp_path, train_examples=2, test_examples=0)
    assert content.train == ["text 0 of 0", "text 1 of 1"]
    assert content.test_labels.tolist() == [1, 0]
    assert content.prompts == ("a comment on a video", "spam")
    assert autows_features.suited("youtube", "minilm")
    assert autows_features.compute(content, "raw", Options()).x.shape[0] == 2


@pytest.mark.parametrize("name", ["imdb", "yelp"])
def test_imdb_and_yelp_may_be_tfds_sets(monkeypatch, tmp_path, name):
    told = Dataset(name, "train", ["bad", "good"], np.arange(2), ("neg", "pos"))
    asked = []
    monkeypatch.setattr(autows_data.data, "load", lambda source, *, split, data_dir: asked.append(source) or told)
    content = autows_data.load(name, data_dir=tmp_path, train_examples=0, test_examples=0)
    assert asked == 2 * [{"imdb": "imdb_reviews", "yelp": "yelp_polarity_reviews"}[name]]
    assert content.train == ["bad", "good"] and "negative" in content.prompts[0]


def test_the_papers_other_sets_are_arrays_beside_which_their_figures_are_printed(tmp_path):
    x, y, _ = (np.asarray(part) for part in blobs(n=160, k=2, d=3))
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "ember.npz", x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    run = start(tmp_path, "--datasets", "ember", "--methods", "few_shot", "--data-dir", str(folder))
    published = json.loads((autows_methods_folder() / "figures.json").read_text())["ember"]["raw"]["few_shot"]
    assert f" {published['accuracy']:.1f} |" in (run.path / "report.md").read_text()


def test_local_files_that_are_not_there_or_hold_something_else_are_told(tmp_path):
    load = lambda name: autows_data.load(name, data_dir=tmp_path, train_examples=0, test_examples=0)
    with pytest.raises(FileNotFoundError, match=r"ecg needs the file .*ecg.npz with x_train, y_train"):
        load("ecg")
    with pytest.raises(FileNotFoundError, match=r"youtube needs the files train.json and test.json of WRENCH"):
        load("youtube")
    with pytest.raises(ValueError, match="there is no data set 'imdb_reviews'"):
        load("imdb")
    np.savez(tmp_path / "ecg.npz", x_train=np.ones((3, 2)), y_train=np.ones(2), x_test=np.ones((1, 2)), y_test=[0])
    with pytest.raises(ValueError, match="as many labels as rows"):
        load("ecg")
    (tmp_path / "yelp").mkdir()
    (tmp_path / "yelp" / "train.json").write_text('["a"]')
    with pytest.raises(ValueError, match=r"train.json must map ids to \{\"label\": ..., .* as WRENCH does"):
        load("yelp")
    with pytest.raises(ValueError, match="youtube needs --data-dir"):
        autows_data.load("youtube", data_dir=None, train_examples=0, test_examples=0)


def test_principal_components_see_the_test_examples_only_when_asked():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(30, 5)), 3 + rng.normal(size=(20, 5))
    content = Content(train, np.arange(30) % 2, test, np.arange(20) % 2)
    own = autows_features.compute(content, "pca", Options(components=2))
    np.testing.assert_allclose(own.x.mean(axis=0), 0, atol=1e-4)
    both = autows_features.compute(content, "pca", Options(components=2, transductive=True))
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
        (["--features", "minilm"], "features and methods must suit one of the data sets"),
        (["--features", "clip"], "clip must name the folder of a model"),
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


@pytest.mark.parametrize("model", ["metal", "flyingsquid", "naive_bayes"])
def test_two_functions_are_counted_where_a_model_needs_three(tmp_path, model):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 60)
    np.save(tmp_path / "x.npy", truth[:, None] + rng.normal(scale=0.3, size=(60, 1)))
    (tmp_path / "labels.csv").write_text("\n".join(words(truth)), encoding="utf-8-sig")
    files = ["--features", f"{tmp_path}/x.npy", "--labels", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/out"]
    out = label.main([*files, "--label-model", model])
    rows = list(csv.DictReader((out / "posteriors.csv").read_text().splitlines()))
    assert np.mean([(float(row["ham"]) > 0.5) == truth[i] for i, row in enumerate(rows)]) > 0.8
    told = f"There are 2 functions, and {model} needs three: the posteriors are those of majority_vote."
    assert (told in (out / "report.md").read_text()) == (model != "naive_bayes")


@pytest.mark.parametrize(
    ("line", "message"),
    [("7", "line 2, must be a row number and a label, got '7'"), ("99,ham", "row 99 is none of the 60 rows")],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line, message):
    with pytest.raises(SystemExit, match=message):
        label.main(write_files(tmp_path, lambda truth: [line]))
