"""The two ends that adapters are compared with: everything trained, and nothing of the model trained.

Both are adapters like the others, so that one training loop, one checkpoint and one table hold them all.
"""

import dataclasses

from zsml_jax.peft.method import Method
from zsml_jax.transform.patterns import Patterns


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullFineTuning(Method):
    """Trains parameters in full, by default all; ``train="bias"`` is BitFit (Ben Zaken et al., 2022)."""

    targets: Patterns = ()
    train: Patterns = "*"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """Trains nothing of the model but what ``train`` says, such as ``"head/**"``, and the adapter's own head."""

    targets: Patterns = ()
