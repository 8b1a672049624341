import sys

import pytest

from zsml_jax.report import JsonlWriter, TensorBoardWriter, WandbWriter, Writer, writers
from zsml_jax.report.records import read_lines


def test_the_line_writer_is_a_writer_and_appends(tmp_path):
    writer = JsonlWriter(tmp_path / "m.jsonl")
    assert isinstance(writer, Writer)
    writer.write(1, {"a": 2})
    JsonlWriter(tmp_path / "m.jsonl").write(None, {"a": 3})
    assert [record["a"] for record in read_lines(tmp_path / "m.jsonl")] == [2, 3]


@pytest.mark.parametrize(
    ("package", "make"), [("tensorboardX", lambda path: TensorBoardWriter(path)), ("wandb", lambda _: WandbWriter())]
)
def test_a_missing_package_is_told_with_the_extra_that_brings_it(tmp_path, monkeypatch, package, make):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is not installed; .*zsml_jax\[logging\]"):
        make(tmp_path)


def test_tensorboard_gets_the_numbers_of_a_nest_by_path(tmp_path, monkeypatch):
    seen = []

    class SummaryWriter:
        def __init__(self, folder):
            seen.append(folder)

        def add_scalar(self, name, value, step):
            seen.append((name, value, step))

        def close(self):
            seen.append("closed")

    class Package:
        pass

    Package.SummaryWriter = SummaryWriter
    monkeypatch.setattr(writers, "_require", lambda package: Package)
    writer = TensorBoardWriter(tmp_path)
    writer.write(3, {"accuracy": {"bbc": 0.5, "note": "text"}, "n": 2})
    writer.close()
    assert seen == [str(tmp_path), ("accuracy/bbc", 0.5, 3), ("n", 2.0, 3), "closed"]
