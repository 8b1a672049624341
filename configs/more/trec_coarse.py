"""TREC questions, 6 kinds of answer, with MiniLM: five methods, each with four rates and three seeds.

    python -m experiments.more trec_coarse

25 minutes on two cores that other work shared, 2026-11-21. Expect test accuracies of 93.0 % [91.8, 94.2] for full
fine-tuning, 91.7 [90.8, 92.6] LoRA, 91.4 [90.1, 92.7] DoRA, 90.7 [89.1, 92.2] MoRe and 80.8
[79.3, 82.4] the probe (t intervals over three seeds) after one pass over the 3,249 training questions: full fine-tuning
wins with 410 times the parameters, and MoRe is a point behind LoRA. No paper reports MoRe on TREC.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_coarse", validation_examples=500)
