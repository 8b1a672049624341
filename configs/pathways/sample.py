"""A sample of Reactome and KEGG pathways under 63 signatures, then link prediction in and out of distribution.

python -m experiments.pathways sample --graphs-file pathways.json.gz
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config()
