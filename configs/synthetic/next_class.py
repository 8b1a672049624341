"""Growing the locus of a random tree of 100 nodes, one observed class at a time; 10 trials.

    python -m experiments.synthetic next_class

About 6 s on two cores. Expect a locus of 42.4 classes from 10 observed ones by Loki's choice and 27.6 by a random one.
"""

from experiments.synthetic import NextClass


def get_config() -> NextClass:
    return NextClass()
