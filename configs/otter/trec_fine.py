"""OTTER on the questions of TREC, 50 fine classes.

python -m experiments.otter trec_fine
"""

from experiments.otter import Config


def get_config() -> Config:
    return Config(dataset="trec_fine", template="a question that asks for {}", few_shot=3)
