"""How sure one may be of a prediction: functions that are fitted on labelled points and then score any points.

Each is a small dataclass with ``fit(outputs, labels, weights=, key=)`` and ``score(fitted, outputs)``, both pure
(:class:`Confidence`). Scoring sees a classifier's outputs and nothing else, so that no label can leak into a decision.
:class:`Softmax`, :class:`Margin` and :class:`Energy` need no fit; :class:`TemperatureScaling`, :class:`VectorScaling`,
:class:`Dirichlet` and :class:`AdaptiveTemperature` scale logits; :class:`TopLabelHistogram`, :class:`ScalingBinning`
and :class:`Isotonic` count; :class:`Colander` is trained to label as much as it can.
"""

from zsml_jax.autolabel.confidence.adaptive_temperature import AdaptiveTemperature
from zsml_jax.autolabel.confidence.binning import ScalingBinning, TopLabelHistogram
from zsml_jax.autolabel.confidence.colander import Colander
from zsml_jax.autolabel.confidence.confidence import Confidence
from zsml_jax.autolabel.confidence.isotonic import Isotonic
from zsml_jax.autolabel.confidence.scaling import Dirichlet, TemperatureScaling, VectorScaling
from zsml_jax.autolabel.confidence.unfitted import Energy, Margin, Softmax

__all__ = [
    "AdaptiveTemperature",
    "Colander",
    "Confidence",
    "Dirichlet",
    "Energy",
    "Isotonic",
    "Margin",
    "ScalingBinning",
    "Softmax",
    "TemperatureScaling",
    "TopLabelHistogram",
    "VectorScaling",
]
