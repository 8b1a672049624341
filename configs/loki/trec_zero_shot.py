"""Loki on TREC without any labels: scores by class descriptions.

    python -m experiments.loki trec_zero_shot

TIME
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(scores="zero_shot")
