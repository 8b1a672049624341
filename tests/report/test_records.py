"""What is written is compared with what Python's own json reads back."""

import dataclasses
import enum
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.report import records


class Colour(enum.Enum):
    RED = 1


class Pair(NamedTuple):
    a: int
    b: float


@dataclasses.dataclass(frozen=True)
class Inner:
    path: Path = Path("a/b")


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    colour: Colour = Colour.RED
    pair: Pair = Pair(1, 2.5)  # noqa: RUF009 (a named tuple is immutable)
    sizes: tuple[int, ...] = (1, 2)
    names: frozenset = frozenset({"b", "a"})


def test_configs_become_json_values():
    assert records.jsonable(Outer()) == {
        "inner": {"path": "a/b"},
        "colour": "RED",
        "pair": {"a": 1, "b": 2.5},
        "sizes": [1, 2],
        "names": ["a", "b"],
    }


def test_arrays_and_their_scalars_become_lists_and_numbers():
    value = {"x": jnp.ones((2, 1)), "y": np.float32(0.5), "z": np.bool_(True), "n": np.int64(3), 4: jnp.int32(7)}
    assert records.jsonable(value) == {"x": [[1.0], [1.0]], "y": 0.5, "z": True, "n": 3, "4": 7}
    assert type(records.jsonable(np.float64(0.5))) is float


def test_a_value_that_json_cannot_hold_is_named():
    with pytest.raises(ValueError, match="complex cannot be written as JSON"):
        records.jsonable({"x": [1j]})
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        records.jsonable(object())


def test_lines_are_read_back_as_they_were_appended_with_nan_and_infinity(tmp_path):
    path = tmp_path / "m.jsonl"
    for step in range(3):
        records.append_line(path, {"step": step, "loss": [math.inf, 0.1 + 0.2], "name": "ö\n"})
    records.append_line(path, {"loss": math.nan})
    *first, last = records.read_lines(path)
    assert first == [{"step": step, "loss": [math.inf, 0.1 + 0.2], "name": "ö\n"} for step in range(3)]
    assert math.isnan(last["loss"])


@pytest.mark.parametrize("cut", range(1, 19))
def test_a_line_torn_at_any_place_costs_itself_only(tmp_path, cut):
    path = tmp_path / "m.jsonl"
    records.append_line(path, {"a": 1})
    whole = json.dumps({"b": {"c": "ö"}}, ensure_ascii=False).encode()
    assert len(whole) == 18
    with open(path, "ab") as file:
        file.write(whole[:cut])
    kept = [{"b": {"c": "ö"}}] * (cut == len(whole))
    assert records.read_lines(path) == [{"a": 1}, *kept]
    records.append_line(path, {"d": 2})
    assert records.read_lines(path) == [{"a": 1}, *kept, {"d": 2}]


def test_a_damaged_line_is_not_taken_for_a_torn_one(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": x}\n{"a": 3}\n')
    with pytest.raises(ValueError, match="line 2 must be a JSON object"):
        records.read_lines(path)
    path.write_text('{"a": 1}\n{"b": {}\n')
    with pytest.raises(ValueError, match="line 2 must be a JSON object"):
        records.read_lines(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1 must be a JSON object"):
        records.read_lines(path)


def test_an_atomic_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "sub" / "x.txt"
    records.write_atomic(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        records.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_an_atomic_write_keeps_to_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        records.write_atomic(tmp_path / "x", b"\0")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_reader_sees_only_whole_files_while_the_writer_is_killed(tmp_path):
    path = tmp_path / "x.txt"
    program = (
        "import sys\nfrom zsml_jax.report.records import write_atomic\nn = 0\n"
        "while True:\n    n += 1\n    write_atomic(sys.argv[1], f'{n % 10}' * 300_000)\n    print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        assert len(set(path.read_text())) == 1
        if int(line) > 20:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    text = path.read_text()
    assert len(text) == 300_000 and len(set(text)) == 1
