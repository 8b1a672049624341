"""Auto-labelling: labels for what a classifier is sure of, and questions about the rest.

Start with :func:`zsml_jax.autolabel.tbal.run`::

    config = Config(mlp(d, (64,), k), k, Roles(selection=100, calibration=150, threshold=500, audit=100), error=0.05)
    result = tbal.run(features, tbal.Oracle(labels), config, key=jax.random.key(0))
    result.auto_labels, result.auto_mask, result.coverage, result.thresholds, result.audit(config)

:mod:`.thresholds` says above which score a label may stand, :mod:`.confidence` holds the scores, Colander among them,
and :mod:`.queries` says what to ask next; :mod:`.baselines` are what it all is compared with. Confidence functions see
what a classifier says and never a label, so that none can leak into a decision.
"""

from zsml_jax.autolabel import baselines, confidence, objectives, queries, tbal, thresholds, training
from zsml_jax.autolabel.classifier import Classifier, mlp
from zsml_jax.autolabel.config import Config, Roles
from zsml_jax.autolabel.oracle import Oracle
from zsml_jax.autolabel.outputs import Outputs
from zsml_jax.autolabel.tbal import TBALState
from zsml_jax.autolabel.training import Training

__all__ = [
    "Classifier",
    "Config",
    "Oracle",
    "Outputs",
    "Roles",
    "TBALState",
    "Training",
    "baselines",
    "confidence",
    "mlp",
    "objectives",
    "queries",
    "tbal",
    "thresholds",
    "training",
]
