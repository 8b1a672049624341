import pytest
from PIL import Image

from zsml_jax.report import Document, Table, environment, plot


def test_a_report_holds_its_parts_in_order_and_its_figures_beside_it(tmp_path, capsys):
    document = Document(tmp_path / "report.md", "OTTER", command="python -m x", config={"a": 1}, start=0.0)
    document.heading("Accuracy")
    table = Table(["method", "n"])
    table.add("OTTER", 3)
    document.text("  A paragraph.\n")
    document.table(table)
    document.figure("accuracy", plot.grouped_bars({"a": {"x": 0.1}}), "By method")
    text = document.write().read_text()
    order = ["# OTTER", "python -m x", "## Accuracy", "A paragraph.", "| OTTER", "![By method](accuracy.png)"]
    order += ["*By method*", "## Environment", "| jax ", "| time ", "## Config", '"a": 1']
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "OTTER" in capsys.readouterr().out
    with Image.open(tmp_path / "accuracy.png") as image:
        assert image.width > 500


def test_a_figure_is_not_named_out_of_the_folder(tmp_path):
    document = Document(tmp_path / "report.md", "T")
    with pytest.raises(ValueError, match="name must be made of letters"):
        document.figure("../x", plot.grouped_bars({"a": {"x": 0.1}}))


def test_the_environment_names_versions_and_devices():
    found = environment()
    import jax

    assert found["jax"] == jax.__version__
    assert found["devices"].startswith(f"{jax.device_count()} x ")
