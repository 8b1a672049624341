"""TREC questions, 50 kinds of answer, with MiniLM: five methods, each with four rates and three seeds.

    python -m experiments.more trec_fine

40 minutes on two cores that other work shared, 2026-11-21. Expect test accuracies of 87.9 % [86.3, 89.5] for full
fine-tuning, 87.1 [86.0, 88.2] DoRA, 86.8 [86.5, 87.2] LoRA, 86.2 [85.3, 87.0] MoRe and 68.6 [66.0, 71.2] the probe (t
intervals over three seeds) after one pass over the 3,249 training questions, with 55,296 parameters (DoRA 48,384) and a
head of 19,250. No paper reports MoRe on TREC.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(dataset="trec_fine", validation_examples=500)
