"""Smaller models: pruning and quantisation as functions of parameters and calibration data.

Start with :func:`groups`, which names the kernels of a model; :func:`prune` sets a share of their weights to zero, and
:func:`quantize` makes small integers of them. Methods that need data take a :class:`Calibration` and go through the
model one block at a time; :func:`prune_folder` and :func:`quantize_folder` do so from disk to disk, for models that do
not fit into memory. :func:`keep_masks` and :func:`prune_gradually` wrap an optimizer, so that training keeps
weights at zero or adds to them; :func:`size_report` says what is really smaller.
"""

from zsml_jax.compression.calibration import Calibration
from zsml_jax.compression.groups import Groups, equal_budget, groups, weights
from zsml_jax.compression.masks import Pruned, apply_masks, masks_of_zeros
from zsml_jax.compression.pruning import prune
from zsml_jax.compression.quantization import quantize
from zsml_jax.compression.size_report import SizeReport, size_report
from zsml_jax.compression.sparse_training import Gradual, keep_masks, prune_gradually
from zsml_jax.compression.streaming import prune_folder, quantize_folder

__all__ = [
    "Calibration",
    "Gradual",
    "Groups",
    "Pruned",
    "SizeReport",
    "apply_masks",
    "equal_budget",
    "groups",
    "keep_masks",
    "masks_of_zeros",
    "prune",
    "prune_folder",
    "prune_gradually",
    "quantize",
    "quantize_folder",
    "size_report",
    "weights",
]
