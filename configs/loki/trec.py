"""Loki on TREC: 50 question classes as the leaves of a tree of 6 coarse classes, some of them never observed.

python -m experiments.loki trec
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config()
