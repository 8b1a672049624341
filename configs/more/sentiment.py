"""Positive or negative in four domains, with MiniLM: five methods, each with four rates and three seeds.

    python -m experiments.more sentiment

38 minutes on two cores that other work shared, 2026-11-21. It trains on 3,000 of the snippets, once. Expect test
accuracies of 82.3 % [80.6, 83.9] for full fine-tuning, 81.7 [79.3, 84.2] LoRA, 81.4 [79.1, 83.7] DoRA, 80.7 [78.5,
82.9] MoRe and 78.5 [78.2, 78.9] the probe (t intervals over three seeds): no difference of MoRe from another trained
method is clear on 825 texts. MoRe chose the largest rate of the grid. No paper reports MoRe on them.
"""

from experiments.more_config import Classification


def get_config() -> Classification:
    return Classification(
        dataset="sentiment_domains", length=32, train_examples=3_000, validation_examples=500, test_examples=1_000
    )
