"""The papers' sets on made-up embeddings: the figures follow the definitions, and what is missing is said."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import published, runner
from zsml_jax.data import cached_embeddings

PRESETS = ("otter_clip", "loki_clip")
CIFAR = ("apple", "pear", "orange", "bed", "chair", "oak_tree", "palm_tree", "willow_tree")
SHORT = ("--max-iterations", "20", "--samplings", "2", "--temperatures", "0.001", "--learning-rates", "0.001", "0.01")


def run(tmp_path, *arguments):
    return runner.main(published.run, "published", [*map(str, arguments), "--runs-dir", str(tmp_path / "runs")])


def rows(folder, cells):
    """The rows of the report's first table of so many columns, by their first cell."""
    found = {}
    for line in (folder.path / "report.md").read_text().splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("|") and len(parts) == cells and not set(line) <= set("|-: "):
            found.setdefault(parts[0], parts[1:])
    return found


def number(cell):
    return float(re.match(r"-?[\d.]+", cell)[0])


def test_the_published_figures_are_those_of_the_papers():
    figures = json.loads((Path(runner.__file__).parent.parent / "configs/published/figures.json").read_text())
    otter = figures["otter_clip"]
    assert len(otter) == 21
    images = [row for row in otter.values() if row["R-OTTER"] is not None]
    assert len(images) == 17
    means = [np.mean([row[name] for row in images]) for name in ("zero-shot", "OTTER", "R-OTTER")]
    np.testing.assert_allclose(means, [61.91, 66.76, 63.29], atol=0.006)
    texts = [row for row in otter.values() if row["R-OTTER"] is None]
    np.testing.assert_allclose(
        [np.mean([row[name] for row in texts]) for name in ("zero-shot", "OTTER")], [59.35, 74.83], atol=0.006
    )
    assert all(row["OTTER"] > row["prior matching"] for row in otter.values())
    assert sum(row["R-OTTER"] < row["zero-shot"] for row in images) == 8
    for model in figures["loki_clip"].values():
        for argmax, decoded, saved in model.values():
            assert saved is None or abs(100 * (1 - decoded / argmax) - saved) < 0.06


@pytest.mark.parametrize("preset", PRESETS)
def test_without_a_folder_a_preset_lists_the_files_that_it_needs(tmp_path, capsys, preset):
    with pytest.raises(SystemExit, match="needs --folder DIR") as exit:
        run(tmp_path, preset)
    assert "interrupted" not in capsys.readouterr().err
    assert all(name in str(exit.value) for name in published.FILES)
    assert "CLIP weights are not in this package yet" in str(exit.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_docstring_holds_its_command(preset):
    assert f"python -m experiments.published {preset}" in runner.load_preset("published", preset).__doc__


def test_a_folder_that_lacks_a_file_is_refused_by_the_names_it_lacks(tmp_path, clip_folder):
    folder = clip_folder(CIFAR)
    (folder / "class_embeddings.npy").unlink()
    with pytest.raises(SystemExit, match=r"lacks class_embeddings.npy\."):
        run(tmp_path, "loki_clip", "--folder", folder)
    with pytest.raises(SystemExit, match="lacks embeddings.npy, labels.npy, classes.json"):
        run(tmp_path, "loki_clip", "--folder", tmp_path / "nowhere")


def test_an_unknown_set_or_model_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(SystemExit, match=r"no published figures of 'cifar11'; there are cifar10, cifar100"):
        run(tmp_path, "otter_clip", "--dataset", "cifar11")
    with pytest.raises(SystemExit, match=r"no published figures of 'biomedclip'; there are rn50"):
        run(tmp_path, "loki_clip", "--model", "biomedclip")


@pytest.mark.slow
def test_otter_stands_beside_the_published_row(tmp_path, clip_folder):
    folder = clip_folder(("a", "b", "c", "d"))
    found = rows(run(tmp_path, "otter_clip", "--folder", folder, *SHORT), cells=5)
    assert [found[name][2] for name in ("zero-shot", "prior matching", "OTTER", "R-OTTER")] == [
        *("88.3", "91.3", "91.7", "88.4")
    ]
    assert found["prior matching"][3] == "0.0"
    content = cached_embeddings.load(folder)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = unit(content.embeddings) @ unit(content.class_embeddings).T
    assert number(found["zero-shot"][0]) == pytest.approx(100 * np.mean(cosines.argmax(1) == content.labels), abs=0.051)
    assert number(found["OTTER"][0]) > number(found["zero-shot"][0]) + 2
    assert number(found["R-OTTER"][0]) > number(found["zero-shot"][0])
    assert number(found["prior matching"][1]) >= 0


@pytest.mark.slow
def test_a_text_set_has_no_published_r_otter(tmp_path, clip_folder):
    folder = clip_folder(("positive", "negative"))
    found = rows(run(tmp_path, "otter_clip", "--folder", folder, "--dataset", "amazon", *SHORT), cells=5)
    assert found["R-OTTER"][2] == "–"
    assert found["OTTER"][2] == "91.7"


@pytest.mark.slow
def test_a_resumed_run_computes_no_finished_part_again(tmp_path, clip_folder, monkeypatch):
    folder = clip_folder(("a", "b", "c"))
    arguments = ("otter_clip", "--folder", folder, *SHORT)
    first = run(tmp_path, *arguments)
    before = rows(first, cells=5)
    (first.path / "results" / "prior matching, sampling 1.json").unlink()
    calls = []
    tuned = published.tuned_accuracy
    monkeypatch.setattr(published, "tuned_accuracy", lambda *a: calls.append(a[-1]) or tuned(*a))
    monkeypatch.setattr(published, "transported", lambda *a: pytest.fail("was finished"))
    second = run(tmp_path, *arguments, "--resume")
    assert second.path == first.path
    assert calls == [1]
    assert rows(second, cells=5) == before


def test_the_labelled_sample_has_as_many_of_each_class_but_half_at_most():
    labels = np.array([0] * 30 + [1] * 7 + [2] * 1)
    chosen = published.labelled_sample(labels, 10, seed=0)
    assert np.bincount(labels[chosen], minlength=3).tolist() == [10, 3, 0]
    assert (chosen != published.labelled_sample(labels, 10, seed=1)).any()


def test_loki_saves_distance_in_the_tree_and_nothing_at_equal_distances(tmp_path, clip_folder):
    found = rows(run(tmp_path, "loki_clip", "--folder", clip_folder(CIFAR)), cells=7)
    assert list(found) == ["metric", "internal", "K100", "default tree", "WordNet tree"]
    assert found["K100"][0] == found["K100"][1]
    assert found["K100"][3:] == ["0.5941", "0.5941", "–"]
    assert found["internal"][3:] == ["0.2922", "0.2613", "10.57"]
    assert found["WordNet tree"] == ["–", "–", "–", "24.3017", "19.5549", "19.53"]
    assert number(found["default tree"][0]) > number(found["K100"][0])
    for name in ("internal", "default tree"):
        argmax, decoded, saved = map(number, found[name][:3])
        assert saved == pytest.approx(100 * (1 - decoded / argmax), abs=0.02)


def test_a_model_without_a_published_tree_still_measures_it(tmp_path, clip_folder):
    found = rows(run(tmp_path, "loki_clip", "--folder", clip_folder(CIFAR), "--model", "align"), cells=7)
    assert found["default tree"][3:] == ["–", "–", "–"]
    assert found["internal"][3:] == ["0.1475", "0.1430", "3.02"]


def test_the_default_tree_is_two_within_a_superclass_and_four_beyond(tmp_path):
    tree = published.TreeMetric.from_hierarchy(published.superclass_tree(CIFAR), CIFAR)
    distances = np.asarray(tree.distances(np.zeros(8, int), np.arange(8)))
    np.testing.assert_array_equal(distances, [0, 2, 2, 4, 4, 4, 4, 4])
    assert tree.diameter == 4


def test_cifar_100_has_twenty_superclasses_of_five_classes():
    superclasses = json.loads((published._CONFIGS / "cifar100_superclasses.json").read_text())
    assert [len(members) for members in superclasses.values()] == [5] * 20
    assert len(set().union(*superclasses.values())) == 100


def test_classes_that_are_not_of_cifar_100_are_refused(tmp_path, clip_folder):
    with pytest.raises(SystemExit, match="'?unicorn'? is none"):
        run(tmp_path, "loki_clip", "--folder", clip_folder(("apple", "bed", "unicorn")))


def test_a_zero_embedding_is_refused(tmp_path, clip_folder):
    folder = clip_folder(CIFAR)
    x = np.load(folder / "embeddings.npy")
    x[5] = 0
    np.save(folder / "embeddings.npy", x)
    with pytest.raises(SystemExit, match="row 5 is zero"):
        run(tmp_path, "loki_clip", "--folder", folder)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_of_a_preset_finds_the_experiment_of_its_config(tmp_path, preset):
    command = [sys.executable, "-m", "experiments.published", preset, "--runs-dir", str(tmp_path)]
    root = Path(runner.__file__).parent.parent
    told = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert told.returncode == 1
    assert f"{preset} needs --folder DIR" in told.stderr
