"""The runner is driven as a user drives it: by its arguments, in a process of its own where it is killed."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from experiments import runner
from zsml_jax.report import RunFolder

ROOT = Path(runner.__file__).parent.parent

PRESET = '''
"""A toy for the tests.

python -m experiments.toy {preset}
"""
import dataclasses

@dataclasses.dataclass(frozen=True)
class Solver:
    tolerance: float = 1e-3

@dataclasses.dataclass(frozen=True)
class Config:
    epsilon: float = {epsilon}
    seeds: int = 3
    solver: Solver = Solver()

def get_config():
    return Config()
'''

EXPERIMENT = """
import os, signal, sys
from pathlib import Path
from experiments import runner

def run(config, folder):
    for seed in range(config.seeds):
        def part():
            with open(folder.path / "calls.txt", "a") as calls:
                calls.write(f"{seed}\\n")
            if os.environ.get("DIE_AT") == str(seed):
                os.kill(os.getpid(), getattr(signal, os.environ["DIE_OF"]))
            return {"accuracy": (0.1 + seed) * config.epsilon}
        folder.log(seed, **folder.cached(f"seed {seed}", part))

if __name__ == "__main__":
    runner.main(run, "toy")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project folder with the experiment ``toy`` and its presets ``plain`` and ``other``."""
    presets = tmp_path / "configs" / "toy"
    presets.mkdir(parents=True)
    (presets / "plain.py").write_text(PRESET.format(preset="plain", epsilon=0.5).lstrip())
    (presets / "other.py").write_text(PRESET.format(preset="other", epsilon=0.25).lstrip())
    (tmp_path / "toy.py").write_text(EXPERIMENT)
    configs = importlib.import_module("configs")
    monkeypatch.setattr(configs, "__path__", [*configs.__path__, str(tmp_path / "configs")])
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("configs.toy")]:
        del sys.modules[name]


def start(toy: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    program = f"import configs; configs.__path__.append({str(toy / 'configs')!r})\n"
    program += "import runpy, sys; sys.argv[0] = 'toy.py'; runpy.run_path('toy.py', run_name='__main__')"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=toy,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_preset_is_run_with_the_fields_that_the_command_line_overrides(toy):
    seen = []
    arguments = ["plain", "--epsilon", "0.1", "--solver.tolerance", "1e-6", "--runs-dir", "out"]
    folder = runner.main(lambda config, folder: seen.append((config, folder)), "toy", arguments)
    config, given = seen[0]
    assert (config.epsilon, config.seeds, config.solver.tolerance) == (0.1, 3, 1e-6)
    assert given is folder
    assert folder.path.parent == Path("out/toy/plain")
    saved = json.loads((folder.path / "config.json").read_text())
    assert saved == {"epsilon": 0.1, "seeds": 3, "solver": {"tolerance": 1e-6}}


def test_an_unknown_preset_is_refused_with_the_names_there_are(toy, capsys):
    with pytest.raises(SystemExit) as exit:
        runner.main(lambda *_: pytest.fail("must not run"), "toy", ["plian"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert "there is no preset 'plian'; did you mean plain?" in error
    assert "other, plain" in error
    assert not (toy / "runs").exists()


def test_help_lists_the_presets_with_their_docstrings(toy, capsys):
    with pytest.raises(SystemExit) as exit:
        runner.main(lambda *_: pytest.fail("must not run"), "toy", ["--help"])
    assert exit.value.code == 0
    out = capsys.readouterr().out
    assert "other                    A toy for the tests." in out
    with pytest.raises(SystemExit) as exit:
        runner.main(lambda *_: pytest.fail("must not run"), "toy", ["plain", "--help"])
    out = capsys.readouterr().out
    assert exit.value.code == 0
    assert all(
        text in out for text in ("python -m experiments.toy plain", "--epsilon", "--solver.tolerance", "--resume")
    )


def test_an_unknown_field_is_refused(toy, capsys):
    with pytest.raises(SystemExit) as exit:
        runner.main(lambda *_: pytest.fail("must not run"), "toy", ["plain", "--epsilom", "1"])
    assert exit.value.code == 2
    assert "--epsilom" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def get_config(): return 1", "must have a docstring"),
        ("'''D.'''\ndef get_config(): return {}", "must return a frozen dataclass, got <class 'dict'>"),
        (
            "'''D.'''\nimport dataclasses\n@dataclasses.dataclass\nclass C: x: int = 1\nget_config = C",
            "frozen dataclass",
        ),
        (
            "'''D.'''\nimport dataclasses as d\n@d.dataclass(frozen=True)\nclass C: resume: int = 1\nget_config = C",
            r"leave these names to the runner: \['resume'\]",
        ),
    ],
)
def test_a_preset_that_does_not_keep_to_the_form_is_refused(toy, source, message):
    (toy / "configs" / "toy" / "odd.py").write_text(source)
    with pytest.raises(ValueError, match=message):
        runner.load_preset("toy", "odd")


def test_resuming_without_an_earlier_run_starts_one(toy, capsys):
    folder = runner.main(lambda config, folder: None, "toy", ["plain", "--resume"])
    assert folder.path.is_dir()
    assert "no run to resume" in capsys.readouterr().err


def test_resuming_with_another_config_is_refused_with_the_fields_that_differ(toy, capsys):
    folder = runner.main(lambda config, folder: None, "toy", ["plain"])
    with pytest.raises(SystemExit) as exit:
        runner.main(lambda *_: pytest.fail("must not run"), "toy", ["plain", "--resume", "--solver.tolerance", "1"])
    assert exit.value.code == 2
    error = capsys.readouterr().err
    assert "solver.tolerance: saved 0.001, given 1.0" in error
    assert "epsilon" not in error
    assert [path.name for path in folder.path.parent.iterdir()] == [folder.path.name]


@pytest.mark.parametrize("kind", [SystemExit, ValueError])
def test_an_experiment_that_refuses_its_config_leaves_no_folder(kind, toy, capsys):
    def refuse(config, folder):
        raise kind("epsilon must fit")

    with pytest.raises(kind, match="epsilon must fit"):
        runner.main(refuse, "toy", ["plain"])
    assert "interrupted" not in capsys.readouterr().err
    assert list((toy / "runs").rglob("config.json")) == []


def test_a_refusal_after_a_finished_part_leaves_the_part(toy):
    def refuse(config, folder):
        folder.cached("part", lambda: 1)
        raise SystemExit("epsilon must fit")

    with pytest.raises(SystemExit):
        runner.main(refuse, "toy", ["plain"])
    assert len(list((toy / "runs").rglob("results/part.json"))) == 1


@pytest.mark.parametrize(("death", "status"), [("SIGTERM", 143), ("SIGKILL", -9)])
def test_a_killed_run_resumes_without_repeating_its_finished_parts(toy, death, status):
    killed = start(toy, "plain", DIE_AT="1", DIE_OF=death)
    assert killed.returncode == status, killed.stderr
    assert ("the same command with --resume" in killed.stderr) == (death == "SIGTERM")
    resumed = start(toy, "plain", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    (path,) = (toy / "runs" / "toy" / "plain").iterdir()
    assert (path / "calls.txt").read_text().split() == ["0", "1", "1", "2"]
    by_step = {record["step"]: record["accuracy"] for record in RunFolder.open(path).metrics()}
    assert by_step == {0: 0.05, 1: 0.55, 2: 1.05}
    again = start(toy, "plain")
    assert again.returncode == 0, again.stderr
    assert len(list((toy / "runs" / "toy" / "plain").iterdir())) == 2


def test_the_command_in_the_folder_is_the_one_that_was_typed(toy):
    assert start(toy, "other", "--epsilon", "2").returncode == 0
    (path,) = (toy / "runs" / "toy" / "other").iterdir()
    assert (path / "command.txt").read_text() == "python toy.py other --epsilon 2\n"


def test_a_profile_is_recorded_when_asked_for(toy):
    folder = runner.main(lambda config, folder: None, "toy", ["plain", "--profile"])
    assert list((folder.path / "profile").rglob("perfetto_trace.json.gz"))


def test_sigterm_has_its_former_handler_after_a_run(toy):
    before = signal.getsignal(signal.SIGTERM)
    runner.main(lambda config, folder: None, "toy", ["plain"])
    assert signal.getsignal(signal.SIGTERM) is before


def real_presets() -> list[tuple[str, str]]:
    folder = ROOT / "configs"
    return sorted((path.parent.name, path.stem) for path in folder.glob("*/*.py") if path.stem != "__init__")


@pytest.mark.parametrize(("name", "preset"), real_presets())
def test_every_preset_tells_its_command_and_has_a_frozen_config_that_json_can_hold(name, preset):
    module = runner.load_preset(name, preset)
    command = f"python -m experiments.{name} {preset}"
    assert command in module.__doc__, textwrap.shorten(module.__doc__, 200)
    config, _ = runner.parse(name, preset, [])
    assert config == module.get_config()
    json.dumps(dataclasses.asdict(config), default=str)
    assert (ROOT / "experiments" / f"{name}.py").is_file()
