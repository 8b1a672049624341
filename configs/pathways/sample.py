"""A sample of Reactome and KEGG pathways under 63 signatures, then link prediction in and out of distribution.

    python -m experiments.pathways sample --graphs-file pathways.json.gz

It takes 25 minutes on two shared cores. With equal budgets mixed spaces have 33 % [27, 40] less distortion than flat
ones and 7 % [4, 10] less than the best family of one curvature; by the published comparison, with unequal numbers of
runs, 37 % [30, 44], where the paper has 25.9 % over 410 graphs of PathBank. Held-out edges are predicted by the
product GCN with an AUC of .919, by the GCN with .923, which cannot be told apart (docs/methods/pathways.md).
"""

from experiments.pathways_config import Config


def get_config() -> Config:
    return Config()
