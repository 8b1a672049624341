"""Loki on TREC without any labels: scores by class descriptions.

    python -m experiments.loki trec_zero_shot

About two minutes on two cores. Expect E[d^2] of 8.79 for the argmax, 9.27 for Loki over the classes and 4.37 over any
node with all 50 classes observed. Over the classes Loki does harm here: the scores are flat, and it answers with one of
the 22 entities in 60 % of the questions, the argmax in 47 %, where 23 % are right. Over any node it halves E[d^2], but
by saying little: the root in 52 % and a coarse class in 40 % of the questions, so that accuracy falls from 31.5 % to
4.6 %. Choosing the next class by the locus is better for the first eight classes (4.37 against 4.90) and worse from 18
on (4.94 against 4.55), where all candidates tie and the first is taken.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config(scores="zero_shot")
