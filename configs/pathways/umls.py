"""Relations of the knowledge graph UMLS, each a graph of up to 96 medical concepts, under 63 signatures.

    python -m experiments.pathways umls

Not yet run. One graph: there is no interval and no verdict.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="umls", link_graphs=0)
