"""OTTER on the questions of TREC, 6 coarse classes.

python -m experiments.otter trec_coarse
"""

from experiments.otter import Config


def get_config() -> Config:
    return Config(dataset="trec_coarse", template="a question that asks for {}")
