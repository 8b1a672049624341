"""The relations of the knowledge graph Nations, each a graph of up to 14 countries, under 63 signatures.

    python -m experiments.pathways nations

Not yet run. One graph: there is no interval and no verdict.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="nations", smallest=8, link_graphs=0)
