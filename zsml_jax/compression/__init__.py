"""Smaller models: pruning and quantisation as functions of parameters and calibration data.

Start with :func:`groups`, which names the kernels of a model.
"""

from zsml_jax.compression.groups import Groups, groups

__all__ = ["Groups", "groups"]
