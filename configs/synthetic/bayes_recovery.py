"""OTTER on two Gaussians under label shift, beside the Bayes decisions.

    python -m experiments.synthetic bayes_recovery

About 50 s on two cores. Expect, at a target positive rate of 0.15, accuracies of 54.4 % naive, 90.2 % OTTER, 90.8 %
entropic with one nat and 90.8 % Bayes. The paper repeats 100 times; 10 give intervals of a third of a point.
"""

from experiments.synthetic import BayesRecovery


def get_config() -> BayesRecovery:
    return BayesRecovery()
