"""A made-up problem of three orthogonal concepts, whose accuracies before and after the edit are known by counting."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import roboshot, roboshot_problems, runner
from experiments.roboshot_figures import METHODS, PUBLISHED, published
from experiments.text_classification import Split
from zsml_jax.data.dataset import Dataset
from zsml_jax.report import RunFolder
from zsml_jax.zeroshot import insights

CORE, SPURIOUS, BENIGN = np.eye(3, dtype=np.float32)


def embed_text(text: str, known: insights.Insights) -> np.ndarray:
    """Insights move along one concept each, and class prompts lean on the spurious concept three times as much."""
    amount = 1 + (sum(text.encode()) % 97) / 97
    if any(text in pair for pair in known.harmful):
        return BENIGN + amount * SPURIOUS
    if any(text in pair for pair in known.helpful):
        return BENIGN + amount * CORE
    label = next(y for y, prompts in enumerate(known.class_prompts + known.group_prompts) if text in prompts) % 2
    return BENIGN + (2 * label - 1) * (CORE + 3 * SPURIOUS)


def examples(sizes: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups ``2 * label + s``: zero-shot follows s, the edited head follows the label."""
    groups = np.repeat(np.arange(4), sizes)
    x = (2 * (groups // 2) - 1)[:, None] * CORE + (2 * (groups % 2) - 1)[:, None] * SPURIOUS + BENIGN
    return x.astype(np.float32), groups // 2, groups


@pytest.fixture
def waterbirds(tmp_path):
    """A folder of embeddings with 10, 20, 30 and 40 examples in the four groups."""
    known = insights.load("waterbirds")
    x, labels, groups = examples((10, 20, 30, 40))
    folder = tmp_path / "waterbirds"
    folder.mkdir()
    for name, array in {"embeddings": x, "labels": labels, "groups": groups, "train_embeddings": x}.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "classes.json").write_text(json.dumps(known.classes))
    texts = roboshot_problems.texts_of(known)
    (folder / "texts.json").write_text(json.dumps(texts))
    np.save(folder / "text_embeddings.npy", np.stack([embed_text(text, known) for text in texts]))
    return folder


def start(preset: str, runs: Path, *arguments: str) -> RunFolder:
    options = ("--runs-dir", str(runs), "--n-resamples", "50")
    return runner.main(roboshot.run, "roboshot", [preset, *arguments, *options])


def figures(folder: RunFolder, grouping: str) -> dict[str, dict]:
    return {row["method"]: row for row in folder.metrics() if row["grouping"] == grouping}


@pytest.mark.slow
def test_a_folder_of_embeddings_gives_the_accuracies_that_counting_gives(waterbirds, tmp_path):
    folder = start("waterbirds", tmp_path, "--embeddings", str(waterbirds))
    by_method = figures(folder, "groups")
    # Zero-shot is right where the spurious concept agrees with the label: in groups 0 and 3.
    zero_shot, edited = by_method["zero-shot"], by_method["reject only"]
    assert zero_shot["micro"] == pytest.approx(0.5)
    assert zero_shot["macro_group"] == pytest.approx(0.5)
    assert zero_shot["train_weighted"] == pytest.approx((3498 + 1057) / (3498 + 184 + 56 + 1057))
    assert zero_shot["worst group"] == 0
    assert zero_shot["gap"] == pytest.approx(zero_shot["train_weighted"])
    for name in ("micro", "macro_group", "train_weighted", "worst group"):
        assert edited[name] == pytest.approx(1)
        assert by_method["RoboShot"][name] == pytest.approx(1)
        # Boosting doubles the core concept, which is still less than the spurious one.
        assert by_method["boost only"][name] == pytest.approx(zero_shot[name])
    assert by_method["label-free adaptation"]["worst group"] == 1
    assert "label-free adaptation, tuned" not in by_method


@pytest.mark.slow
def test_the_report_prints_the_published_row_beside_the_measured_one(waterbirds, tmp_path):
    folder = start("waterbirds", tmp_path, "--embeddings", str(waterbirds), "--model", "ALIGN")
    report = (folder.path / "report.md").read_text()
    row = next(line for line in report.splitlines() if line.startswith("| RoboShot  "))
    assert [cell.strip() for cell in row.split("|")][-3:-1] == ["50.9", "41.0"]
    assert row.count("100.0 [100.0, 100.0]") == 4
    change = next(line for line in report.splitlines() if line.startswith("| reject only") and line != row)
    assert "100.0" in change
    assert (folder.path / "averages_groups.png").stat().st_size > 10_000


@pytest.mark.slow
def test_resuming_computes_no_finished_part_again(waterbirds, tmp_path, monkeypatch):
    first = start("waterbirds", tmp_path, "--embeddings", str(waterbirds))
    report = (first.path / "report.md").read_text()
    monkeypatch.setattr(roboshot, "measure", lambda *_: pytest.fail("must be read from the folder"))
    again = start("waterbirds", tmp_path, "--embeddings", str(waterbirds), "--resume")
    assert again.path == first.path
    tables = lambda text: [line for line in text.splitlines() if line.startswith("| RoboShot")]
    assert tables((again.path / "report.md").read_text()) == tables(report)


def test_without_a_folder_the_error_names_the_files_it_must_hold(tmp_path):
    with pytest.raises(SystemExit, match="needs --embeddings DIR") as error:
        start("waterbirds", tmp_path)
    for name in ("embeddings.npy", "labels.npy", "groups.npy", "classes.json", "texts.json", "text_embeddings.npy"):
        assert name in str(error.value)


def test_a_folder_without_texts_gets_the_list_of_those_to_embed(waterbirds, tmp_path):
    (waterbirds / "texts.json").unlink()
    (waterbirds / "text_embeddings.npy").unlink()
    with pytest.raises(SystemExit, match=r"lacks text_embeddings\.npy"):
        start("waterbirds", tmp_path, "--embeddings", str(waterbirds))
    texts = json.loads((waterbirds / "texts.json").read_text())
    known = insights.load("waterbirds")
    assert {"a landbird", known.harmful[0][0], known.helpful[-1][1], known.group_prompts[1][0]} <= set(texts)
    assert len(texts) == len(set(texts))


def test_classes_in_another_order_are_refused(waterbirds, tmp_path):
    (waterbirds / "classes.json").write_text(json.dumps(["waterbird", "landbird"]))
    with pytest.raises(ValueError, match=r"classes\.json must list \['landbird', 'waterbird'\] in this order"):
        start("waterbirds", tmp_path, "--embeddings", str(waterbirds))


def test_a_group_without_a_name_is_refused(waterbirds, tmp_path):
    np.save(waterbirds / "groups.npy", np.load(waterbirds / "groups.npy") + 1)
    with pytest.raises(ValueError, match=r"groups\.npy must hold 0\.\.3, got 1\.\.4"):
        start("waterbirds", tmp_path, "--embeddings", str(waterbirds))


def test_a_text_that_was_not_embedded_is_refused(waterbirds, tmp_path):
    texts = json.loads((waterbirds / "texts.json").read_text())
    (waterbirds / "texts.json").write_text(json.dumps(["something else", *texts[1:]]))
    with pytest.raises(ValueError, match=f"lacks 1 texts, such as {texts[0]!r}"):
        start("waterbirds", tmp_path, "--embeddings", str(waterbirds))


@pytest.fixture
def made_up_text(monkeypatch):
    """The text data set and its encoder, without a download."""
    known = insights.load("sentiment_domains")
    prompts = runner.load_preset("roboshot", "sentiment_domains").get_config().group_prompts

    def encoder(texts):
        with_groups = insights.Insights(known.harmful, known.helpful, "", (), known.class_prompts, prompts)
        return np.stack([embed_text(text, with_groups) for text in texts])

    def load_splits(encoder, name, *splits, limit):
        x, labels, groups = examples((10, 20, 30, 40))
        domains = groups % 2
        return [
            Split(Dataset(name, split, ["?"] * 100, labels, ("negative", "positive"), None, domains, ("a", "b")), x)
            for split in splits
        ]

    monkeypatch.setattr(roboshot_problems.models, "text_encoder", lambda name: encoder)
    monkeypatch.setattr(roboshot_problems, "load_splits", load_splits)


@pytest.mark.slow
def test_a_text_data_set_is_measured_by_domain_and_by_domain_and_class(made_up_text, tmp_path):
    folder = start("sentiment_domains", tmp_path)
    domains, crossed = figures(folder, "domains"), figures(folder, "domains x classes")
    # Domain a holds 10 right and 30 wrong answers, domain b 40 right and 20 wrong ones.
    assert domains["zero-shot"]["worst group"] == pytest.approx(10 / 40)
    assert domains["zero-shot"]["macro_group"] == pytest.approx((10 / 40 + 40 / 60) / 2)
    assert crossed["zero-shot"]["worst group"] == 0
    assert crossed["zero-shot"]["gap"] == pytest.approx(0.5)
    assert domains["group prompts"]["micro"] == pytest.approx(0.5)
    assert crossed["reject only"]["worst group"] == 1
    assert crossed["label-free adaptation, tuned"]["worst group"] == 1
    report = (folder.path / "report.md").read_text()
    assert "100 labelled examples choose" in report
    assert "published" not in report
    assert (folder.path / "checkpoints" / "roboshot").is_dir()


def test_a_text_data_set_without_groups_is_refused(made_up_text, tmp_path, monkeypatch):
    with_groups = roboshot_problems.load_splits

    def without_groups(*arguments, limit):
        return [
            Split(dataclasses.replace(split.dataset, groups=None, group_names=()), split.x)
            for split in with_groups(*arguments, limit=limit)
        ]

    monkeypatch.setattr(roboshot_problems, "load_splits", without_groups)
    with pytest.raises(ValueError, match="dataset must be one with groups, and 'sentiment_domains' has none"):
        start("sentiment_domains", tmp_path)


def test_published_figures_are_fractions_by_method():
    assert published("waterbirds", "CLIP ViT-B/32")["RoboShot"] == pytest.approx((0.82, 0.544))
    assert "group prompts" not in published("vlcs", "ALIGN")
    assert published("sentiment_domains", "any") == {}
    with pytest.raises(ValueError, match="model must be one of BiomedCLIP for cxr14, got 'CLIP'"):
        published("cxr14", "CLIP")


def test_every_published_row_has_a_place_for_each_method_and_no_worst_group_above_its_average():
    for rows in PUBLISHED.values():
        for row in rows.values():
            assert len(row) == len(METHODS)
            assert all(worst <= average for average, worst in filter(None, row))


@pytest.mark.slow
def test_on_real_sentiment_the_edit_raises_the_average(tmp_path):
    folder = start("sentiment_domains", tmp_path, "--limit", "1000")
    by_method = figures(folder, "domains")
    assert 0.65 < by_method["zero-shot"]["micro"] < 0.8
    assert by_method["boost only"]["micro"] > by_method["zero-shot"]["micro"]
    assert by_method["RoboShot"]["micro"] > by_method["zero-shot"]["micro"]
