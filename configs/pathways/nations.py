"""The knowledge graph Nations, 14 countries, under 63 signatures.

    python -m experiments.pathways nations

Not yet run. One graph: there is no interval and no verdict.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="nations", graphs=1, link_graphs=0, restarts=3)
