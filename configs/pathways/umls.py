"""The knowledge graph UMLS, 135 medical concepts, under 63 signatures.

    python -m experiments.pathways umls

Not yet run. One graph: there is no interval and no verdict.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="umls", graphs=1, largest=192, link_graphs=0)
