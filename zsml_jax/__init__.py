"""Make pretrained models better with few or no labels, in JAX and Flax.

Start with :mod:`zsml_jax.zeroshot` (OTTER, RoboShot, Loki), :func:`zsml_jax.models.load` for pretrained weights and
:func:`zsml_jax.data.load` for named data sets. Subpackages are imported when first used.
"""

import importlib
from types import ModuleType

from zsml_jax.citation import citation

__version__ = "0.1.0"
__all__ = [
    "autolabel",
    "citation",
    "compression",
    "curvature",
    "data",
    "evaluate",
    "models",
    "peft",
    "report",
    "train",
    "transform",
    "weaksup",
    "zeroshot",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"zsml_jax.{name}")
    raise AttributeError(f"module 'zsml_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
