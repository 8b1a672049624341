"""Loki on TREC without any labels: scores by class descriptions.

    python -m experiments.loki trec_zero_shot

About two minutes on two cores. Expect E[d^2] of 8.79 for the argmax, 9.27 for Loki over the classes and 4.37 over any
node with all 50 classes observed. Over the classes Loki does harm here: the descriptions' scores are flat, so that the
many small classes of a large coarse class outweigh the right one. Over any node it halves E[d^2], mostly by answering
with the root or a coarse class: accuracy falls from 31.5 % to 4.6 %. Choosing the next class by the locus is better for
the first eight classes (4.37 against 4.90) and worse from 18 on, where all candidates tie and the first is taken.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(scores="zero_shot")
