"""A sample of Reactome and KEGG pathways under 63 signatures, then link prediction in and out of distribution.

    python -m experiments.pathways sample --graphs-file pathways.json.gz

Not yet run as a whole, so that there is no figure to expect. Published, with an unequal number of runs: 25.9 % less
distortion than the best Euclidean embedding, over 410 graphs of PathBank.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config()
