"""Label shift: the label distribution of unlabelled data, where only the class frequencies have changed.

The estimators of a labelled source and an unlabelled target, each with its own output, which always has
``label_distribution``, ``importance_weights`` (target over source) and ``converged``:

* :func:`mlls` maximises the likelihood by EM, on calibrated predictions; the most precise one with good calibration.
* :func:`bbse` inverts the confusion matrix, hard or soft; needs no calibration, but a well-conditioned matrix.
* :func:`rlls` inverts it with a penalty on the shift and non-negative weights; for small sources.
* :func:`few_shot` and :func:`histogram` only count labels or predictions.

:func:`bootstrap` gives intervals for any of them. :func:`reweight` turns source predictions into target ones, and
:mod:`.otter` takes the estimate as its label distribution. Who has hard predictions in place of scores passes
``log(one_hot(predictions))``: an entry of -inf is a probability of zero.
"""

from zsml_jax.zeroshot.label_shift.black_box import BbseOutput, bbse
from zsml_jax.zeroshot.label_shift.counting import CountOutput, few_shot, histogram
from zsml_jax.zeroshot.label_shift.intervals import BootstrapOutput, bootstrap
from zsml_jax.zeroshot.label_shift.likelihood import MllsOutput, mlls
from zsml_jax.zeroshot.label_shift.moments import ShiftMoments, shift_moments
from zsml_jax.zeroshot.label_shift.regularized import RllsOutput, default_penalty, rlls
from zsml_jax.zeroshot.label_shift.reweighting import reweight

__all__ = [
    "BbseOutput",
    "BootstrapOutput",
    "CountOutput",
    "MllsOutput",
    "RllsOutput",
    "ShiftMoments",
    "bbse",
    "bootstrap",
    "default_penalty",
    "few_shot",
    "histogram",
    "mlls",
    "reweight",
    "rlls",
    "shift_moments",
]
