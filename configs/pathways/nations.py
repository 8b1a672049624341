"""The relations of the knowledge graph Nations, each a graph of up to 14 countries, under 63 signatures.

    python -m experiments.pathways nations

As a whole Nations is a complete graph. Of its relations 24 with 8 to 14 connected countries are drawn. With equal
budgets mixed spaces have an average distortion of .070 and flat ones of .118, 40 % less [34, 47]; hyperbolic ones have
.079, and against the best family of one curvature the difference cannot be told from zero. Relations share their
countries and are not independent. It takes eleven minutes on two shared cores.
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config(dataset="nations", smallest=8, link_graphs=0)
