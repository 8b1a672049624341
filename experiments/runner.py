"""The anatomy all experiments share: a preset in, a run folder out.

An experiment ``experiments/otter.py`` ends in::

    if __name__ == "__main__":
        runner.main(run, "otter")

where ``run(config, folder)`` takes the resolved config and a :class:`~zsml_jax.report.RunFolder`. Its presets are the
modules ``configs/otter/<preset>.py``, each with a docstring (the command, the time it takes, the figure to expect
beside the published one) and ``get_config()``, which returns a frozen dataclass. Then::

    python -m experiments.otter                              # lists the presets
    python -m experiments.otter bbc_news --epsilon 0.1       # any field of the config
    python -m experiments.otter bbc_news --resume            # goes on with the newest run

A run that is killed has lost nothing: parts that went through ``folder.cached`` or a ``Checkpointer`` are on the disk,
and ``--resume`` skips them.
"""

import contextlib
import dataclasses
import difflib
import importlib
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated, Any, Literal, NoReturn

import absl.flags
import jax
import tyro

from zsml_jax.data.assets import AssetError
from zsml_jax.report import RunFolder, TensorBoardWriter, WandbWriter
from zsml_jax.train import distributed

#: What an experiment is: a function of its config and the folder of its run.
Experiment = Callable[[Any, RunFolder], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of every experiment."""

    runs_dir: Path = Path("runs")
    """The folder of all runs."""
    resume: bool = False
    """Go on with the newest run of this preset, or start one if there is none."""
    distributed: bool = False
    """Join the other processes first (jax.distributed.initialize); give it on every process of a pod."""
    profile: bool = False
    """Record a profile of the run (jax.profiler, with a Perfetto trace) in its folder."""
    writers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where metrics go beside metrics.jsonl; needs the logging extra."""


def main(run: Experiment, name: str, argv: Sequence[str] | None = None) -> RunFolder:
    """Runs an experiment from the command line.

    Args:
      run: the experiment.
      name: its name; the presets are the modules of ``configs.<name>``.
      argv: the arguments, those of the process by default.

    Returns:
      The folder of the run.

    Raises:
      SystemExit: with status 2 after wrong arguments, which are told on standard error.
    """
    # grain's workers read absl flags, which nobody parses here (google/grain issue 1361).
    absl.flags.FLAGS.mark_as_parsed()
    argv = list(sys.argv[1:] if argv is None else argv)
    available = presets(name)
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview(name, available))
        raise SystemExit(0 if argv else 2)
    preset = argv[0]
    if preset not in available:
        _fail(_unknown(preset, available))
    config, options = parse(name, preset, argv[1:])
    if options.distributed:
        distributed.initialize()
    try:
        folder = _open(name, preset, config, options)
    except ValueError as error:
        _fail(str(error))
    _tell(f"{name} {preset}: {folder.path}")
    start = time.monotonic()
    with contextlib.closing(folder), _term_as_exit(folder), _profile(folder.path / "profile", options.profile):
        for writer in options.writers:
            folder.add_writer(_writer(writer, folder))
        run(config, folder)
    _tell(f"{name} {preset}: done in {time.monotonic() - start:.0f} s, see {folder.path}")
    return folder


@contextlib.contextmanager
def refusals() -> Generator[None, None, None]:
    """Ends the program with the message of what is wrong with the config, a file or a model."""
    try:
        yield
    except (ValueError, FileNotFoundError, AssetError) as error:
        raise SystemExit(str(error)) from error


def presets(name: str) -> list[str]:
    """Returns the names of an experiment's presets."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(f"configs.{name}").__path__))


def load_preset(name: str, preset: str) -> ModuleType:
    """Imports a preset.

    Raises:
      ValueError: if there is none of this name, or it does not keep to the form: a docstring, and ``get_config()``
        that returns a frozen dataclass.
    """
    if preset not in presets(name):
        raise ValueError(_unknown(preset, presets(name)))
    module = importlib.import_module(f"configs.{name}.{preset}")
    where = f"configs/{name}/{preset}.py"
    if not (module.__doc__ or "").strip():
        raise ValueError(f"{where} must have a docstring: the command, the time it takes, the figure to expect")
    config = module.get_config()
    if not dataclasses.is_dataclass(config) or not config.__dataclass_params__.frozen:
        raise ValueError(f"get_config() of {where} must return a frozen dataclass, got {type(config)}")
    if taken := {f.name for f in dataclasses.fields(config)} & {f.name for f in dataclasses.fields(Options)}:
        raise ValueError(f"the config of {where} must leave these names to the runner: {sorted(taken)}")
    return module


def parse(name: str, preset: str, argv: Sequence[str]) -> tuple[Any, Options]:
    """Returns a preset's config with the fields overridden that ``argv`` names, and the options."""
    module = load_preset(name, preset)
    default = module.get_config()
    kind: Any = type(default)
    flat = tyro.conf.arg(name="")

    both: Any = dataclasses.make_dataclass(
        "both",
        [
            ("config", Annotated[kind, flat], dataclasses.field(default=default)),
            ("options", Annotated[Options, flat], dataclasses.field(default=Options())),
        ],
    )
    parsed = tyro.cli(
        both,
        args=argv,
        prog=f"python -m experiments.{name} {preset}",
        description=module.__doc__,
        config=(tyro.conf.AvoidSubcommands,),
    )
    return parsed.config, parsed.options


def _open(name: str, preset: str, config: Any, options: Options) -> RunFolder:
    if options.resume:
        try:
            return RunFolder.resume(options.runs_dir, name, preset, config)
        except FileNotFoundError as error:
            _tell(f"{error}; starting one")
    return RunFolder.create(options.runs_dir, name, preset, config)


def _writer(kind: str, folder: RunFolder) -> TensorBoardWriter | WandbWriter:
    if kind == "tensorboard":
        return TensorBoardWriter(folder.path / "tensorboard")
    return WandbWriter(
        project=folder.experiment, group=folder.preset, id=folder.path.name, resume="allow", config=dict(folder.config)
    )


@contextlib.contextmanager
def _term_as_exit(folder: RunFolder) -> Generator[None, None, None]:
    """Makes SIGTERM unwind the stack, so that files are closed; a Checkpointer takes the signal while it is open."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # Where jax.distributed runs, its own notifier has the signal.
    previous = None if jax.distributed.is_initialized() else signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, SystemExit) and isinstance(error.code, str):
            folder.discard()  # a message is the experiment's refusal of its config, which no resuming would change
        else:
            _tell(f"interrupted; the same command with --resume goes on in {folder.path}")
        raise
    except ValueError:
        folder.discard()  # what cannot be is refused before anything is computed, by whom it does not matter
        raise
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _profile(path: Path, wanted: bool) -> Generator[None, None, None]:
    with jax.profiler.trace(str(path), create_perfetto_trace=True) if wanted else contextlib.nullcontext():
        yield


def _overview(name: str, available: Sequence[str]) -> str:
    lines = [f"usage: python -m experiments.{name} PRESET [--help] [--FIELD VALUE ...]", "", "presets:"]
    for preset in available:
        summary = (load_preset(name, preset).__doc__ or "").strip().splitlines()[0]
        lines.append(f"  {preset:<24} {summary}")
    return "\n".join(lines)


def _unknown(preset: str, available: Sequence[str]) -> str:
    close = difflib.get_close_matches(preset, available, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"there is no preset {preset!r}{hint} The presets are: {', '.join(available)}"


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise SystemExit(2)


def _tell(message: str) -> None:
    if jax.process_index() == 0:
        print(message, file=sys.stderr, flush=True)
