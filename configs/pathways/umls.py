"""Relations of the knowledge graph UMLS, each a graph of up to 96 medical concepts, under 63 signatures.

    python -m experiments.pathways umls

As a whole no two concepts are more than two steps apart. Of its relations 24 with 12 to 85 connected concepts are
drawn. With equal budgets mixed spaces have an average distortion of .109 and flat ones of .176, 41 % less [34, 47];
hyperbolic ones alone have .109 too, and the difference to the best family of one curvature cannot be told from zero.
Relations share their concepts and are not independent. It takes 23 minutes on two shared cores.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="umls", link_graphs=0)
