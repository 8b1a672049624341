"""Paired timings and peak memory, printed as ratios with their spread."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


def machine(*packages: str) -> str:
    """Returns one line about the processor, the cores and the versions of jax and the given packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", *packages))
    device = jax.devices()[0].device_kind
    return f"{_processor()}, {os.cpu_count()} cores, {versions} on {device}"


def compare(
    name: str, ours: Callable[[], object], peer: Callable[[], object], *, peer_name: str, repeats: int
) -> tuple[float, float]:
    """Runs the two in turn after one warm-up of ours, and prints how many times faster ours is.

    Args:
      name: what is compared.
      ours: runs our code; its result is waited for.
      peer: runs the peer's code.
      peer_name: the peer.
      repeats: counted runs of each.

    Returns:
      The median seconds of both.
    """
    first = seconds(ours)
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    ours_s, peer_s = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{name:<36} ours {_duration(ours_s)} (first {_duration(first)})   {peer_name} {_duration(peer_s)}   "
        f"{statistics.median(ratios):.1f} times faster ({min(ratios):.1f} to {max(ratios):.1f}, {repeats} pairs)",
        flush=True,
    )
    return ours_s, peer_s


def seconds(run: Callable[[], object]) -> float:
    """Returns the wall-clock seconds of one run, its arrays waited for."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def peak_memory(run: str, *arguments: str, limit: float | None = None) -> float:
    """Returns the peak resident memory, GB, of a fresh process that calls one function; Linux only.

    Args:
      run: the function, as ``module:name``. Its imports count; what it returns does not matter.
      arguments: strings to call it with, for example file names.
      limit: seconds after which the process is killed.

    Raises:
      subprocess.TimeoutExpired: if it was killed.
    """
    return _fresh_process(run, arguments, "", limit)[1]


def alone(run: str, *arguments: str) -> tuple[Any, float]:
    """Returns what a function returns in a fresh process, which JSON must be able to hold, and its peak memory, GB.

    Args:
      run: as for :func:`peak_memory`.
      arguments: as for :func:`peak_memory`.
    """
    printed, peak = _fresh_process(run, arguments, "print(); print(json.dumps(result))", None)
    return json.loads(printed.splitlines()[-1]), peak


def _fresh_process(run: str, arguments: Sequence[str], then: str, limit: float | None) -> tuple[str, float]:
    """What a process prints that calls the function and does ``then`` with its ``result``, and its peak memory, GB."""
    module, name = run.split(":")
    status = "print(); print(open('/proc/self/status').read())"
    code = f"import json, sys, {module} as m\nresult = m.{name}(*sys.argv[1:])\n{then}\n{status}"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    if done.returncode:
        raise RuntimeError(f"{run} has ended with {done.returncode}:\n{done.stderr}")
    printed, _, status = done.stdout.rpartition("\nName:")
    # Not ru_maxrss: on Linux a child inherits that of the process it was forked from.
    return printed.rstrip(), float(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1e6


def _duration(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{1e3 * value:.2f} ms"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
