"""The unit ball of TBAL (2023): error against the number of labelled points for thresholds.

    python -m experiments.colander unit_ball

It has not been run to its end yet. Published (the authors' notebooks): TBAL's error falls from 3.10 % with 100 labelled
points to 0.54 % with 2,000, its coverage rises from 71.4 % to 97.2 %; epsilon is 1 %.
"""

from experiments.colander_config import UnitBall


def get_config() -> UnitBall:
    return UnitBall()
