"""The tour on made-up texts, from the command line to the report."""

import pytest

from experiments import demo
from zsml_jax.report import RunFolder

NAMES = ("ABBR:abb", "ENTY:animal", "ENTY:color", "HUM:ind")


def test_the_small_tour_takes_200_examples_and_writes_a_report_and_a_checkpoint(tmp_path, encoder, texts, capsys):
    loaded = texts(NAMES, n=60, descriptions=("an abbreviation", "an animal", "a color", "a person"))
    folder = demo.main(["--small", "--runs-dir", str(tmp_path)])
    assert folder.path.parent == tmp_path / "demo" / "small"
    assert loaded == [(name, "test[:200]") for name in demo.DATASETS]
    report = (folder.path / "report.md").read_text()
    for stage in ("zero-shot", "RoboShot", "RoboShot + OTTER", "RoboShot + OTTER + Loki"):
        assert f"| {stage} " in report
    assert "restored, same predictions: True" in capsys.readouterr().out
    assert (folder.checkpoints / "trec_fine").is_dir()
    assert all((folder.path / f"labels_{name}.png").is_file() for name in demo.DATASETS)
    logged = RunFolder.open(folder.path).metrics()
    assert [line["dataset"] for line in logged] == list(demo.DATASETS)
    assert all(line["converged"] and abs(line["duality_gap"]) < 1e-5 for line in logged)


@pytest.mark.slow
def test_the_small_tour_on_real_texts_gains_by_otter(tmp_path):
    folder = demo.main(["--small", "--runs-dir", str(tmp_path)])
    rows = [line for line in (folder.path / "report.md").read_text().splitlines() if line.startswith("| trec_")]
    values = [[float(cell.split("[")[0]) for cell in row.strip("|").split("|")[2:]] for row in rows[:2]]
    assert all(adapted > plain for plain, adapted in values)
