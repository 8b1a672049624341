"""Loki on TREC: 50 question classes as the leaves of a tree of 6 coarse classes, some never observed.

    python -m experiments.loki trec

About 100 s on two cores. Expect E[d^2] 3.08 for the argmax and 2.94 for Loki with all 50 classes observed, and 7.03
and 6.97 with 20: where only leaves may be predicted and the probe is sharp, little is saved. Exponent 2 is the best, as
in the paper's ablation.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config()
