"""Zero-shot adaptation: better predictions from a frozen encoder and no labels.

Start with :func:`class_head`, which turns class prompts into a :class:`ClassHead`. Then :mod:`.roboshot` edits its
class vectors, :mod:`.otter` fits its predictions to a label distribution, and :mod:`.loki` decodes its probabilities
with a metric over the classes. All three fold into one affine head and one decoding rule.
"""

from zsml_jax.zeroshot import (
    adaptation,
    calibration,
    hierarchical_otter,
    insights,
    label_shift,
    locus,
    loki,
    metric_space,
    online_otter,
    otter,
    prior_matching,
    prior_matching_released,
    roboshot,
)
from zsml_jax.zeroshot.head import ClassHead, class_head

__all__ = [
    "ClassHead",
    "adaptation",
    "calibration",
    "class_head",
    "hierarchical_otter",
    "insights",
    "label_shift",
    "locus",
    "loki",
    "metric_space",
    "online_otter",
    "otter",
    "prior_matching",
    "prior_matching_released",
    "roboshot",
]
