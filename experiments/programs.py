"""Compiled programs of a long experiment: the system counts their parts, and they are forgotten before it refuses more.

XLA keeps every program for the CPU in memory maps of its own, hundreds of them for a large one, and Linux allows a
process ``vm.max_map_count``, 65,530 unless told otherwise. At that number nothing can be compiled any more, and the
process dies. An experiment whose shapes change from part to part comes there within half an hour.
"""

from pathlib import Path

import jax

_MAPS = Path("/proc/self/maps")
_LIMIT = Path("/proc/sys/vm/max_map_count")


def forget_when_many(share: float = 0.5) -> bool:
    """Forgets all compiled programs if they fill the share of the maps that the process may have.

    Args:
      share: between 0 and 1.

    Returns:
      Whether they were forgotten; never where the system does not tell, as no other than Linux does.
    """
    if not (_MAPS.exists() and _LIMIT.exists()):
        return False
    if memory_maps() < share * int(_LIMIT.read_text()):
        return False
    jax.clear_caches()
    return True


def memory_maps() -> int:
    """Returns how many memory maps this process has; on Linux only."""
    return _MAPS.read_bytes().count(b"\n")
