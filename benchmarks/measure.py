"""Paired timings and peak memory, printed as ratios with their spread."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
    """Returns the peak resident memory, GB, of a fresh process that calls one function; see :func:`alone`."""
    return alone(run, *arguments, limit=limit)[1]


def alone(run: str, *arguments: str, limit: float | None = None) -> tuple[Any, float]:
    """Calls one function in a fresh process; Linux only.

    Args:
      run: the function, as ``module:name``.
      arguments: strings to call it with, for example file names.
      limit: seconds after which the process is killed.

    Returns:
      What it returns, which JSON must be able to hold, and the process's peak resident memory, GB, its imports
      included.

    Raises:
      subprocess.TimeoutExpired: if it was killed.
    """
    module, name = run.split(":")
    code = (
        f"import json, sys, {module} as m; result = json.dumps(m.{name}(*sys.argv[1:])); "
        "print(); print(result); print(open('/proc/self/status').read())"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=limit)
    # Not ru_maxrss: on Linux a child inherits that of the process it was forked from.
    result, peak = re.search(r"^(.*)\nName:.*VmHWM:\s+(\d+) kB", done.stdout, re.DOTALL | re.MULTILINE).groups()
    return json.loads(result.splitlines()[-1]), float(peak) / 1e6


def _duration(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.1 else f"{1e3 * value:.2f} ms"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
