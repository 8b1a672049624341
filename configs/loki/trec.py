"""Loki on TREC: 50 question classes as the leaves of a tree of 6 coarse classes, some never observed.

    python -m experiments.loki trec

Three to five minutes on two cores. Expect E[d^2] of 3.35 for the argmax, 3.34 for Loki over the classes and 2.85 over
any node with all 50 classes observed, and 6.83, 6.83 and 5.92 with 20. In so flat a tree a class that was not observed
is never better than an observed neighbour, so that Loki over the classes and the exponent change next to nothing. Loki
over any node answers "a person" or "a number" when in doubt, which saves 5 to 15 % at a cost of up to six points of
accuracy. With one choice of 25 classes, temperatures tuned by three criteria change E[d^2] by less than 0.5 %. Choosing
the next class by the locus enlarges it, but E[d^2] is not surely lower: 9.40 against 10.27 with eight classes, 8.48
against 8.50 with 13, 7.36 against 6.61 with 23, all within the intervals. Once every coarse class is reached all
candidates tie, and the first in the order of the classes is taken.
"""

from experiments.loki import Config


def get_config() -> Config:
    return Config()
