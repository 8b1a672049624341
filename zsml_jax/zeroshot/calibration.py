"""Calibration of zero-shot scores; it lives in :mod:`zsml_jax.evaluate.calibrators`, since other methods need it too.

Estimators of label shift by likelihood (:func:`.label_shift.mlls`), prior matching and Loki need calibrated
probabilities; OTTER at epsilon = 0 does not.
"""

from zsml_jax.evaluate.calibrators import (
    Calibration,
    fit_bias_corrected_temperature,
    fit_temperature,
    fit_vector_scaling,
)

__all__ = ["Calibration", "fit_bias_corrected_temperature", "fit_temperature", "fit_vector_scaling"]
